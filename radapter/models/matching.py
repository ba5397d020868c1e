"""Whether a text is of a picture, by a model that reads both together: CoCa's text decoder, whose
tokens attend to the picture's, with a matching head behind it (as ALBEF and BLIP have one).

Such a model has a linear layer `matching`, from the state of a text's last token [n, width] to
logits [n, 2]; the second says that picture and text belong together. The decoder is causal, so it
is the last token that has seen the whole text; tokens behind it change nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radapter.errors import UsageError
from radapter.models.text import ends, text_tower


def has_matching(model: nn.Module) -> bool:
    """Whether a model has a matching head."""
    return hasattr(model, "matching")


def check_decoder(model: nn.Module, what: str) -> None:
    """Raise UsageError if a model has no text decoder that `match_logits` can run."""
    if not hasattr(model, "text_decoder"):
        raise UsageError(
            f"{what} needs a text decoder with cross-attention, as CoCa has one, and this model "
            "has none: set method.multimodal=false."
        )
    tower = text_tower(model)
    if getattr(tower, "attn_mask", None) is None:
        raise UsageError(
            f"{what} needs a causal text tower of open_clip's own code, and this one is a "
            f"{type(tower).__name__}: set method.multimodal=false."
        )


def of_pictures(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, height, width] -> their features [n, dim], not normalised, and what the
    decoder reads of them [n, tokens, width]."""
    features, states = model.visual(pixels)  # type: ignore[operator]
    return features, states


def of_texts(model: nn.Module, tokens: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Token ids [n, context length] -> features of texts [n, dim], not normalised, and what the
    decoder reads of them [n, length, width].

    Args:
        length: tokens of the longest text; None: all are read, which changes nothing.
    """
    features, states = model.text(tokens)  # type: ignore[operator]
    return features, states[:, :length]


def longest(model: nn.Module, tokens: Tensor) -> int:
    """How many tokens the longest text has."""
    return int(last_tokens(model, tokens).max()) + 1


def last_tokens(model: nn.Module, tokens: Tensor) -> Tensor:
    """The place of each text's last token, [n]."""
    return ends(text_tower(model), tokens)


def match_logits(model: nn.Module, pictures: Tensor, texts: Tensor, last: Tensor) -> Tensor:
    """Logits [n, 2], fp32, of n pictures each with a text.

    Args:
        pictures: what the decoder reads of each picture [n, tokens, width].
        texts: what it reads of each text [n, length, width].
        last: the place of each text's last token [n].
    """
    decoder: Any = model.text_decoder
    mask = decoder.attn_mask[: texts.shape[1], : texts.shape[1]]
    again = decoder.grad_checkpointing and torch.is_grad_enabled()
    x, read = (x if decoder.batch_first else x.transpose(0, 1) for x in (texts, pictures))
    for own, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
        if again:
            x = checkpoint(own, x, None, None, mask, use_reentrant=False)
            x = checkpoint(cross, x, read, read, None, use_reentrant=False)
        else:
            x = cross(own(x, attn_mask=mask), k_x=read, v_x=read)
    x = x if decoder.batch_first else x.transpose(0, 1)
    place = last[:, None, None].expand(-1, 1, x.shape[-1])
    states = decoder.ln_final(x.gather(1, place)[:, 0])
    return model.matching(states).float()  # type: ignore[operator]
