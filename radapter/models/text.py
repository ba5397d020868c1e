"""Short texts: a causal text tower read at the end-of-text token needs no padding after it."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from radapter.errors import UsageError
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
    return tokens[:, : int(ends(text_tower(model), tokens).max()) + 1]


def encode_text(model: nn.Module, tokens: Tensor, embedded: Tensor | None = None) -> Tensor:
    """Text features [batch, dim], not normalized, of token ids [batch, length].

    Any length up to the model's context length; open_clip's own `encode_text` takes full length
    only. Equal to it to 1e-6. An ensemble's own takes any.

    Args:
        embedded: what is read in the place of the tokens' embeddings [batch, length, width], by a
            model that takes short texts; None: these.
    """
    if hasattr(model, "members") or not takes_short_texts(model):
        return model.encode_text(tokens)  # type: ignore[operator]
    tower = text_tower(model)
    pool, end_token = _pooling(tower)
    states = _states(tower, tokens, embedded)
    x = text_global_pool(states, tokens, pool, eos_token_id=end_token)
    return behind(model, "text", _projected(tower, x))


def token_features(model: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Features of every token [batch, length, dim], not normalized: what the end-of-text token's
    state goes through, each token's goes through. And which of them are of the text, the tokens of
    begin and end too, bool [batch, length].

    Raises:
        UsageError: the text tower has no tokens that can be told apart so.
    """
    if hasattr(model, "members") or not takes_short_texts(model):
        raise UsageError(
            "Features of tokens need a causal text tower that is read at its end-of-text token, as "
            "CLIP's is, and this model has another: score it with `match: {by: cosine}`."
        )
    tower = text_tower(model)
    x = _projected(tower, _states(tower, tokens))
    last = ends(tower, tokens)
    read = torch.arange(tokens.shape[1], device=tokens.device) <= last[:, None]
    return behind(model, "text", x), read


def ends(tower: Any, tokens: Tensor) -> Tensor:
    """The place of each text's end, [batch]."""
    pool, end_token = _pooling(tower)
    is_end = tokens if pool == "argmax" else torch.eq(tokens, int(end_token or 0)).int()
    return is_end.argmax(dim=1)


def _states(tower: Any, tokens: Tensor, embedded: Tensor | None = None) -> Tensor:
    """What the tower makes of each token, [batch, length, width], behind its last norm."""
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x = (tower.token_embedding(tokens) if embedded is None else embedded).to(dtype)
    x = x + tower.positional_embedding[:length].to(dtype)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    states: Tensor = tower.ln_final(x)
    return states


def _projected(tower: Any, x: Tensor) -> Tensor:
    projection = tower.text_projection
    if projection is None:
        return x
    projected: Tensor = (
        projection(x) if isinstance(projection, nn.Linear) else torch.matmul(x, projection)
    )
    return projected
