"""The zero-shot head: class names to weights, in the one place where they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter import distributed
from radapter.heads.head import Head

BATCH = 256


class Encoder(Protocol):
    """What `OpenModel` has of texts."""

    if TYPE_CHECKING:

        @property
        def runtime(self) -> Any: ...
        @property
        def tokenizer(self) -> Callable[[Sequence[str]], Tensor]: ...


class ZeroShot(nn.Module):
    """logits [n, classes] = logit scale * features [n, dim] weights^T.

    Classes with equal rows have one logit: equal columns of a matrix product need not be equal.

    Args:
        weights: [classes, dim], unit norm.
    """

    weights: Tensor
    place: Tensor | None

    def __init__(self, weights: Tensor, logit_scale: float) -> None:
        super().__init__()
        distinct, place = weights.unique(dim=0, return_inverse=True)
        same = len(distinct) == len(weights)
        self.register_buffer("weights", weights if same else distinct)
        self.register_buffer("place", None if same else place)
        self.logit_scale = logit_scale

    def forward(self, features: Tensor) -> Tensor:
        logits = self.logit_scale * (features @ self.weights.T)
        return logits if self.place is None else logits[:, self.place]


def encode_texts(model: Encoder, texts: Sequence[str]) -> Tensor:
    """Unit-norm features [texts, dim]; equal texts are encoded once, short ones together."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    features = distributed.in_turns(
        [distinct[i : i + BATCH] for i in range(0, len(distinct), BATCH)],
        lambda some: model.runtime.encode_text(model.tokenizer(some)),
    )
    row = {text: i for i, text in enumerate(distinct)}
    return features[[row[text] for text in texts]]


def weights(
    model: Encoder,
    classes: Mapping[str, Any],
    encode: Callable[[Any, Sequence[str]], Tensor] = encode_texts,
) -> Tensor:
    """The head [classes, dim]: of each class the mean of its prompts' unit features, normalized.

    Args:
        model: what encodes the prompts.
        classes: `names`, one a class, with their text `features` [classes, dim], or else with
            `prompts`, one list of texts a class; without both, the names are the texts.
        encode: texts -> unit features [texts, dim], where a cache may stand between.
    """
    if "features" in classes:
        return F.normalize(torch.as_tensor(classes["features"]).detach().float().cpu(), dim=-1)
    prompts: Sequence[Sequence[str]] = classes.get("prompts") or [[n] for n in classes["names"]]
    features = encode(model, [text for row in prompts for text in row])
    means = [rows.mean(dim=0) for rows in features.split([len(row) for row in prompts])]
    return F.normalize(torch.stack(means), dim=-1)


def head(
    model: Encoder,
    classes: Mapping[str, Any],
    encode: Callable[[Any, Sequence[str]], Tensor] = encode_texts,
) -> Head:
    """The head itself: see `weights`."""
    module = ZeroShot(weights(model, classes, encode), model.runtime.logit_scale)
    return Head(list(classes["names"]), module)


def prompts_of(names: Sequence[str], templates: Sequence[str]) -> dict[str, Any]:
    """Classes in the form that `weights` takes: every template filled with every name."""
    return {
        "names": list(names),
        "prompts": [[t.replace("{}", n) for t in templates] for n in names],
    }
