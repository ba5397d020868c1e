"""Whether the parts of a model fit each other: checked on opening, not in the first batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from radapter.errors import BrokenInput
from radapter.models.loaded import LoadedModel
from radapter.models.text import text_tower


class _Tower(nn.Module):
    def __init__(self, model: nn.Module, encode: str) -> None:
        super().__init__()
        self.model, self._encode = model, encode

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = getattr(self.model, self._encode)(inputs)
        return features


def check(loaded: LoadedModel) -> None:
    """Send one picture and one text through the shapes of the towers; no number is computed.

    For models that others have assembled: an architecture that open_clip names needs no check.

    Raises:
        BrokenInput: preprocessing, tokenizer and towers are not of one model.
    """
    name, model, tokenizer = loaded.name, loaded.model, loaded.tokenizer
    size = loaded.config["preprocess_cfg"]["size"]
    height, width = (size, size) if isinstance(size, int) else size
    image = _dim(name, model, "encode_image", torch.zeros(1, 3, height, width), "pictures of "
                 f"{height} x {width}, which preprocessing makes")  # fmt: skip
    _check_added_tokens(name, model, tokenizer)
    length = loaded.context_length
    if config := getattr(getattr(model, "text", None), "config", None):
        # A tower of transformers: its masks look at numbers, so shapes alone do not go through it.
        if 0 < getattr(config, "max_position_embeddings", 0) < length:
            raise BrokenInput(
                f"{name} cannot take texts of {length} tokens, which its tokenizer makes: its text "
                f"tower has {config.max_position_embeddings} positions."
            )
        return
    text = _dim(name, model, "encode_text", torch.zeros(1, length, dtype=torch.long),
                f"texts of {length} tokens, which its tokenizer makes")  # fmt: skip
    if image != text:
        raise BrokenInput(
            f"{name}: pictures get features of {image} dimensions and texts of {text}. Its "
            "configuration and its weights are not of one model."
        )


def _dim(name: str, model: nn.Module, encode: str, inputs: Tensor, what: str) -> int:
    tower = _Tower(model, encode)
    shapes = {
        key: torch.empty_like(value, device="meta")
        for key, value in (*tower.named_parameters(), *tower.named_buffers())
    }
    try:
        with torch.no_grad():
            return int(functional_call(tower, shapes, (inputs.to("meta"),)).shape[-1])
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BrokenInput(
            f"{name} cannot take {what}: {reason} Its configuration does not fit its weights."
        ) from error


def _check_added_tokens(name: str, model: nn.Module, tokenizer: Any) -> None:
    """Tokens added to a Hugging Face tokenizer need their rows in the model."""
    own: Any = getattr(tokenizer, "tokenizer", None)
    if not hasattr(own, "get_added_vocab"):
        return
    tower: Any = text_tower(model)
    rows = (
        tower.transformer.get_input_embeddings()
        if hasattr(tower, "config")
        else tower.token_embedding
    ).weight.shape[0]
    if beyond := sorted(token for token, number in own.get_added_vocab().items() if number >= rows):
        raise BrokenInput(
            f"{name}: the tokens {', '.join(beyond[:5])} were added to the tokenizer, and the text "
            f"tower knows {rows} tokens only: it was trained without them."
        )
