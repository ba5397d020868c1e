"""Short texts: a causal text tower read at the end-of-text token needs no padding after it."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from radapter.models.joint import behind


def text_tower(model: nn.Module) -> Any:
    """The module that holds the text tower: `CLIP` itself, or `CustomTextCLIP.text`; of an ensemble
    that of one member."""
    model = getattr(model, "of", model)
    return model if hasattr(model, "token_embedding") else model.text


def _pooling(tower: Any) -> tuple[str, int | None]:
    if hasattr(tower, "text_pool_type"):  # open_clip's CLIP prefixes the names
        return tower.text_pool_type, getattr(tower, "text_eos_id", None)
    return getattr(tower, "pool_type", "none"), getattr(tower, "eos_id", None)


def takes_short_texts(model: nn.Module) -> bool:
    """Whether tokens after the end-of-text token cannot change this model's text features."""
    tower = text_tower(model)
    return (
        getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
        and not getattr(tower, "use_pad_mask", False)
        and _pooling(tower)[0] in ("argmax", "eos")
    )


def shorten(model: nn.Module, tokens: Tensor) -> Tensor:
    """Cut token ids [batch, length] to the longest text, where that changes nothing."""
    if not takes_short_texts(model) or not len(tokens):
        return tokens
    pool, end_token = _pooling(text_tower(model))
    is_end = tokens if pool == "argmax" else torch.eq(tokens, int(end_token or 0)).int()
    ends = is_end.argmax(dim=1)
    return tokens[:, : int(ends.max()) + 1]


def encode_text(model: nn.Module, tokens: Tensor) -> Tensor:
    """Text features [batch, dim], not normalized, of token ids [batch, length].

    Any length up to the model's context length; open_clip's own `encode_text` takes full length
    only. Equal to it to 1e-6. An ensemble's own takes any.
    """
    if hasattr(model, "members") or not takes_short_texts(model):
        return model.encode_text(tokens)  # type: ignore[operator]
    tower = text_tower(model)
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype)
    x = x + tower.positional_embedding[:length].to(dtype)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    x = tower.ln_final(x)
    pool, end_token = _pooling(tower)
    x = text_global_pool(x, tokens, pool, eos_token_id=end_token)
    projection = tower.text_projection
    if projection is not None:
        linear = isinstance(projection, nn.Linear)
        x = projection(x) if linear else torch.matmul(x, projection)
    return behind(model, "text", x)
