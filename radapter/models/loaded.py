"""A loaded model with all that belongs to it; its hash, and the folder it is saved in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
from safetensors.torch import save_file
from torch import Tensor, nn

from radapter.heads.head import TUNED, Head
from radapter.models import conventions
from radapter.models.text import shorten

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TEXT_TOWER = "text_tower"
"""Folder in a model folder with the configuration of its Hugging Face text tower"""


@dataclass
class LoadedModel:
    """A model with everything needed to use it: fp32, on the CPU, in evaluation mode."""

    name: str
    model: nn.Module
    tokenizer: Any
    """list of texts -> token ids [n, context length], int64"""
    preprocess: Any
    """PIL picture -> float tensor [3, height, width], as at evaluation"""
    config: dict[str, Any] = field(repr=False)
    """`model_cfg` and `preprocess_cfg`, the content of open_clip_config.json"""
    head: Head | None = None
    """That was trained with it; None: classes are told apart by their texts"""

    @cached_property
    def tokenize(self) -> Callable[[Sequence[str]], Tensor]:
        """Texts to token ids as short as the model takes them; one function, so that what is kept
        of its tokens is found again."""
        return lambda texts: shorten(self.model, self.tokenizer(list(texts)))

    @property
    def context_length(self) -> int:
        """Tokens of a text. The tokenizer's: a tower may have been made for longer ones."""
        return int(self.tokenizer.context_length)

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by to become logits; already exponentiated."""
        return float(self.model.logit_scale.detach().exp())  # type: ignore[operator]

    @cached_property
    def used_with(self) -> dict[str, Any]:
        """The preprocessing and the activation, in plain data: what `load` takes as `of_file`."""
        own = canonical_preprocessing(self.config["preprocess_cfg"])
        quick = bool(self.config["model_cfg"].get("quick_gelu"))
        return {key: own[key] for key in conventions.PREPROCESSING} | {"quick_gelu": quick}

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the weights as they were loaded, those of the head too; see `weights_hash`."""
        return weights_hash(with_head(self.model.state_dict(), self.head))


def image_size(model: nn.Module) -> tuple[int, int]:
    """(height, width) of the pictures that a model takes, in pixels."""
    size: Any = model.visual.image_size  # type: ignore[union-attr]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def save(folder: Path, loaded: LoadedModel, state: Mapping[str, Tensor]) -> None:
    """Write open_clip's folder format, which `open_clip.create_model("local-dir:...")` loads."""
    config = json.dumps(loaded.config, indent=2, default=list) + "\n"
    (folder / CONFIG).write_text(config, encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    if isinstance(loaded.tokenizer, open_clip.tokenizer.HFTokenizer):
        # open_clip reads a folder's Hugging Face tokenizer from the folder itself.
        loaded.tokenizer.tokenizer.save_pretrained(folder)
    if text_cfg := getattr(getattr(loaded.model, "text", None), "config", None):
        text_cfg.save_pretrained(folder / TEXT_TOWER)


def with_head(state: Mapping[str, Tensor], head: Head | None) -> dict[str, Tensor]:
    """All tensors that a model gives its answers with."""
    own = {} if head is None else head.module.state_dict()
    return {**state, **{f"{TUNED}{name}": tensor for name, tensor in own.items()}}


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and values of the weights, the values as little-endian fp32.

    It covers the weights as they are used, not the bytes of the file: a checkpoint kept as fp16
    has the same hash as its fp32 copy.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in preprocessor_config.json


def canonical_preprocessing(preprocess_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's preprocessing settings in one spelling, as they are after JSON."""
    size = preprocess_cfg["size"]
    mean, std = (
        [value] * 3 if isinstance(value, float) else list(value)
        for value in (preprocess_cfg["mean"], preprocess_cfg["std"])
    )
    bilinear = preprocess_cfg.get("interpolation") == "bilinear"
    return {
        "size": [size, size] if isinstance(size, int) else list(size),
        "mean": mean,
        "std": std,
        "interpolation": "bilinear" if bilinear else "bicubic",  # also what `random` is here
        "resize_mode": preprocess_cfg.get("resize_mode") or "shortest",
        "fill_color": preprocess_cfg.get("fill_color") or 0,
    }
