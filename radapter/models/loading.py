"""Load open_clip models by name, from a folder or a checkpoint file; save and hash them."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from radapter.errors import BrokenInput, MissingDependency, UsageError, nearest
from radapter.models import downloads, huggingface
from radapter.models.text import shorten

EMOJI_CLIP = Path(__file__).parent / "emoji_clip"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


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

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the weights as they were loaded; see `weights_hash`."""
        return weights_hash(self.model.state_dict())

    def shorten(self, tokens: Tensor) -> Tensor:
        """Token ids [batch, length] cut to the longest text, where that changes nothing."""
        return shorten(self.model, tokens)


def names() -> list[str]:
    """Every `NAME:TAG` that can be loaded, the built-in model first."""
    return ["emoji-clip", *(f"{name}:{tag}" for name, tag in open_clip.list_pretrained())]


def load(path_or_name: str | Path, *, seed: int = 0) -> LoadedModel:
    """A model by name, from a folder or from a checkpoint file.

    Args:
        path_or_name: `emoji-clip` (built in), `NAME:TAG` as open_clip knows them, `NAME:FILE` for
            a checkpoint of a known architecture, `NAME:random` for random weights, or a folder in
            open_clip's format (`local-dir:FOLDER` too) or of Hugging Face's CLIP.
        seed: draws the weights of `NAME:random`.

    Raises:
        UsageError: no such model or tag.
        BrokenInput: a file is missing, damaged or holds what is not safe to load.
    """
    name = str(path_or_name)
    if name == "emoji-clip":
        return _from_folder(EMOJI_CLIP, name)
    if name.startswith("local-dir:"):
        return _from_folder(Path(name.removeprefix("local-dir:")), name)
    if Path(name).is_dir():
        return _from_folder(Path(name), name)
    architecture, separator, tag = name.partition(":")
    if not separator and (os.sep in name or Path(name).suffix):
        raise BrokenInput(f"No model folder at {name}.")
    if architecture == "emoji-clip" and tag == "random":
        config = json.loads((EMOJI_CLIP / CONFIG).read_text())
        return _random(f"local-dir:{EMOJI_CLIP}", name, config, seed)
    known = ["emoji-clip", *open_clip.list_models()]
    if architecture not in known:
        raise UsageError(f"Unknown model '{architecture}'.{nearest(architecture, known)}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tag:
        raise UsageError(
            f"Model '{name}' needs its weights named too: {name}:TAG with TAG one of "
            f"{', '.join([*tags, 'random'])}."
        )
    if tag == "random":
        config = {"model_cfg": open_clip.get_model_config(architecture)}
        return _random(architecture, name, config, seed)
    if tag not in tags and not Path(tag).is_file():
        raise UsageError(
            f"Unknown weights '{tag}' for {architecture}.{nearest(tag, [*tags, 'random'])}"
        )
    return _pretrained(architecture, tag, name)


def _from_folder(folder: Path, name: str) -> LoadedModel:
    if not (folder / CONFIG).is_file() and huggingface.is_folder(folder):
        return _from_huggingface(folder, name)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["model_cfg"]["vision_cfg"], config["model_cfg"]["text_cfg"]
    except FileNotFoundError:
        raise BrokenInput(
            f"{folder} is no model folder: it has no {CONFIG}, nor Hugging Face's config.json "
            "with model.safetensors."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise BrokenInput(
            f"{folder / CONFIG} is damaged: not an open_clip configuration."
        ) from None
    check_safetensors(folder / WEIGHTS)
    return _create(f"local-dir:{folder}", None, name, config, source=str(folder / WEIGHTS))


def _from_huggingface(folder: Path, name: str) -> LoadedModel:
    model_cfg = huggingface.model_config(folder)
    preprocess_cfg = huggingface.preprocess_config(folder, model_cfg["vision_cfg"]["image_size"])
    tokenizer = huggingface.tokenizer(folder, model_cfg["text_cfg"]["context_length"])
    state: dict[str, Tensor] = {}
    for file in huggingface.weight_files(folder):
        check_safetensors(file)
        state |= load_file(file)
    try:
        model = open_clip.CLIP(**copy.deepcopy(model_cfg))
        model.load_state_dict(huggingface.convert_weights(state))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BrokenInput(f"{name} cannot be loaded as a CLIP model: {reason}") from error
    open_clip.model.set_model_preprocess_cfg(model, preprocess_cfg)
    return _loaded(name, model, tokenizer, model_cfg)


def _pretrained(architecture: str, tag: str, name: str) -> LoadedModel:
    known = open_clip.get_pretrained_cfg(architecture, tag) or {}
    if Path(tag).is_file() and tag.endswith(".safetensors"):
        check_safetensors(Path(tag))
    elif not Path(tag).is_file():
        downloads.fetch(name, architecture, known)
    # A tag's activation is part of the weights' identity: open_clip 3 only warns about it.
    quick = bool(known.get("quick_gelu")) or architecture.endswith("quickgelu")
    config = {"model_cfg": open_clip.get_model_config(architecture)}
    return _create(architecture, tag, name, config, source=tag, force_quick_gelu=quick)


def _random(open_clip_name: str, name: str, config: dict[str, Any], seed: int) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(open_clip_name, None, name, config, source="random", load_weights=False)


def _create(
    open_clip_name: str,
    pretrained: str | None,
    name: str,
    config: dict[str, Any],
    *,
    source: str,
    force_quick_gelu: bool = False,
    load_weights: bool = True,
) -> LoadedModel:
    try:
        with _quiet():
            tokenizer = open_clip.get_tokenizer(open_clip_name)
            model = open_clip.create_model(
                open_clip_name,
                pretrained,
                load_weights=load_weights,
                pretrained_text=load_weights,
                force_quick_gelu=force_quick_gelu,
                weights_only=True,
            )
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{name} needs the package {error.name}, which is not installed. "
            'Type first: pip install "radapter[hf]"'
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BrokenInput(f"{name} (weights: {source}) cannot be loaded: {reason}") from error
    return _loaded(name, model, tokenizer, config["model_cfg"])


def _loaded(name: str, model: Any, tokenizer: Any, model_cfg: Mapping[str, Any]) -> LoadedModel:
    model_cfg = dict(model_cfg)
    if any(isinstance(m, open_clip.transformer.QuickGELU) for m in model.modules()):
        model_cfg["quick_gelu"] = True
    preprocess_cfg = dict(model.visual.preprocess_cfg)
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**preprocess_cfg), is_train=False
    )
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    return LoadedModel(name, model.eval(), tokenizer, preprocess, config)


def save(
    folder: Path,
    loaded: LoadedModel,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write open_clip's folder format, which `open_clip.create_model("local-dir:...")` loads."""
    config = json.dumps(loaded.config, indent=2, default=list) + "\n"
    (folder / CONFIG).write_text(config, encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **(metadata or {})})
    if isinstance(loaded.tokenizer, open_clip.tokenizer.HFTokenizer):
        # open_clip reads a folder's Hugging Face tokenizer from the folder itself.
        loaded.tokenizer.tokenizer.save_pretrained(folder)


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


def check_safetensors(path: Path) -> dict[str, str]:
    """The metadata of a whole safetensors file; BrokenInput if it is anything else."""
    if not path.is_file():
        raise BrokenInput(f"Weights not found: {path}.")
    try:
        with safe_open(path, framework="pt") as tensors:
            return tensors.metadata() or {}
    except (SafetensorError, OSError) as error:
        # A damaged safetensors file can start like a pickle: eight bytes of a length, then JSON.
        with open(path, "rb") as file:
            start = file.read(9)
        if (start[:2] == b"PK" or start[:1] == b"\x80") and start[8:] != b"{":
            raise BrokenInput(
                f"{path} is a pickle (or a torch.save archive), which can run code when loaded. "
                "Only safetensors are taken."
            ) from None
        raise BrokenInput(f"{path} is damaged or truncated: {error}") from None


@contextlib.contextmanager
def _quiet() -> Any:
    """open_clip logs to the root logger and warns about what is handled here."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().setLevel(level)
