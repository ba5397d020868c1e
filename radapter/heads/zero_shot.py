"""The zero-shot head: class names to weights, in the one place where they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter import distributed
from radapter.runtimes.opened import OpenModel

BATCH = 256


def encode_texts(model: OpenModel, texts: Sequence[str]) -> Tensor:
    """Unit-norm features [texts, dim]; equal texts are encoded once, short ones together."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    features = distributed.in_turns(
        [distinct[i : i + BATCH] for i in range(0, len(distinct), BATCH)],
        lambda some: model.runtime.encode_text(model.tokenizer(some)),
    )
    row = {text: i for i, text in enumerate(distinct)}
    return features[[row[text] for text in texts]]


def weights(
    model: OpenModel,
    classes: Mapping[str, Any],
    encode: Callable[[OpenModel, Sequence[str]], Tensor] = encode_texts,
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


def prompts_of(names: Sequence[str], templates: Sequence[str]) -> dict[str, Any]:
    """Classes in the form that `weights` takes: every template filled with every name."""
    return {
        "names": list(names),
        "prompts": [[t.replace("{}", n) for t in templates] for n in names],
    }
