"""What turns texts and pictures into a bundle's inputs, from the bundle alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from tokenizers import Tokenizer
from torch import Tensor

from radapter import bundle
from radapter.errors import BrokenInput

INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


class BundleInputs:
    """The tokenizer and the preprocessing that a bundle brings along.

    Raises:
        BrokenInput: one of their files is damaged, or of a form that radapter does not write.
    """

    def __init__(self, folder: Path | str):
        folder = Path(folder)
        manifest = bundle.read_manifest(folder)
        try:
            dynamic = manifest["text_length"] == "dynamic"
            length = int(manifest["context_length"])
            self._tokenizer = _tokenizer(folder, length, dynamic=dynamic)
            processor = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
            self.config: dict[str, Any] = {"preprocess_cfg": preprocess_cfg(processor)}
        except Exception as error:  # `tokenizers` raises plain Exceptions
            reason = " ".join(str(error).split())[:200]
            raise BrokenInput(
                f"The tokenizer or the preprocessing of bundle {folder} cannot be read: "
                f"{type(error).__name__}: {reason}. Export it again."
            ) from None
        self.preprocess: Any = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**self.config["preprocess_cfg"]), is_train=False
        )

    def tokenizer(self, texts: Sequence[str]) -> Tensor:
        """Token ids [n, length], int64; where the text tower takes any length, that of the longest
        text."""
        return torch.tensor([encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))])

    def shorten(self, tokens: Tensor) -> Tensor:
        """The same ids: `tokenizer` has cut them already."""
        return tokens


def _tokenizer(folder: Path, context_length: int, *, dynamic: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pad_id = (tokenizer.padding or {}).get("pad_id")
    if pad_id is None:  # a Hugging Face tokenizer as it was saved
        special = json.loads((folder / "special_tokens_map.json").read_text("utf-8"))
        token = special["pad_token"]
        pad_id = tokenizer.token_to_id(token if isinstance(token, str) else token["content"])
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(pad_id=pad_id, length=None if dynamic else context_length)
    return tokenizer


def preprocess_cfg(processor: dict[str, Any]) -> dict[str, Any]:
    """open_clip's settings from the content of a preprocessor_config.json of radapter's."""
    if "open_clip" in processor:
        return dict(processor["open_clip"])
    crop = processor["crop_size"]
    return {
        "size": [crop["height"], crop["width"]],
        "mode": "RGB",
        "mean": processor["image_mean"],
        "std": processor["image_std"],
        "interpolation": INTERPOLATION[processor["resample"]],
        "resize_mode": "shortest" if processor["do_center_crop"] else "squash",
        "fill_color": 0,
    }
