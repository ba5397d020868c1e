"""Queries of a picture and a text, with a model that has an inversion network: the picture becomes
words of the text, which the text tower reads (Gal et al. 2022; Saito et al. 2023).

Such a model has a module `inversion` with `words(z, tokens, plain)`, from features of pictures as
the image tower gives them, token ids and their embeddings to embeddings of words; with `place`, the
id of the token that these words take the place of; `template`, what goes around a text; and
`scale`, radapter's alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.models.text import encode_text, takes_short_texts, text_tower

PLACE = "$"
"""Stands for the picture in a text; the token that it is has to be known to the network"""


def has_queries(model: nn.Module) -> bool:
    """Whether a model makes queries of a picture and a text."""
    return hasattr(model, "inversion")


def template_of(model: nn.Module) -> str | None:
    """What a text beside a picture is put into; None: the model makes no queries of both."""
    return str(model.inversion.template) if has_queries(model) else None  # type: ignore[union-attr]


def check_tower(model: nn.Module, what: str) -> None:
    """Raise UsageError if words cannot be put into the text tower of a model."""
    if not takes_short_texts(model):
        kind = type(text_tower(model)).__name__
        raise UsageError(
            f"{what} needs a causal text tower of open_clip's own code, and this one is a {kind}."
        )


def check_place(tokenize: Callable[[list[str]], Tensor], place: int) -> None:
    """Raise UsageError if `$` is another token than `place`, or several of them are."""
    ids = tokenize([PLACE])[0]
    token = int(ids[1])
    twice = tokenize([f"{PLACE} {PLACE}"])[0]
    if token != place or not torch.equal(twice[1:3].cpu(), ids[[1, 1]].cpu()):
        raise UsageError(
            f"method.place is {place}, and this model's tokenizer has {token} for '{PLACE}': set "
            f"method.place={token}."
        )


def asked(template: str, text: str) -> str:
    """A text in its template, which has the one place for the picture.

    Args:
        template: with `$` where the picture stands, and `{}` for the text.
    """
    return template.replace("{}", " ".join(text.replace(PLACE, " ").split()))


def query_features(model: nn.Module, z: Tensor, tokens: Tensor) -> Tensor:
    """Query features [n, dim], not normalised.

    The first token of the text that is a place takes the first word, the second one the second, and
    what follows the last. At a scale of 0 the place's own token is read, as any text's; between,
    embeddings are mixed.

    Args:
        z: features of pictures as the image tower gives them [n, dim].
        tokens: ids of texts in their template [n, length].
    """
    inversion: Any = model.inversion
    plain = text_tower(model).token_embedding(tokens)
    words = inversion.words(z, tokens, plain).to(plain.dtype)
    is_place = tokens == inversion.place
    number = (is_place.cumsum(dim=1) - 1).clamp(0, words.shape[1] - 1)
    put = words.gather(1, number[..., None].expand(-1, -1, words.shape[-1]))
    mixed = torch.lerp(plain, put, inversion.scale.to(plain.dtype))
    return encode_text(model, tokens, torch.where(is_place[..., None], mixed, plain))
