"""Zero-shot classification: class names to a head, features to predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter.runtimes import Runtime


def encode_texts(
    runtime: Runtime,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    shorten: Callable[[Tensor], Tensor] = lambda tokens: tokens,
) -> Tensor:
    """Unit-norm features [texts, dim]; equal texts are encoded once, short ones together."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    features = torch.cat(
        [
            runtime.encode_text(shorten(tokenizer(distinct[i : i + batch_size])))
            for i in range(0, len(distinct), batch_size)
        ]
    )
    row = {text: i for i, text in enumerate(distinct)}
    return features[[row[text] for text in texts]]


def classifier_head(
    runtime: Runtime,
    tokenizer: Any,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    shorten: Callable[[Tensor], Tensor] = lambda tokens: tokens,
) -> Tensor:
    """Head [classes, dim]: the mean over templates of normalized text features, normalized."""
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    features = encode_texts(runtime, tokenizer, prompts, shorten=shorten)
    means = features.view(len(class_names), len(templates), -1).mean(dim=1)
    return F.normalize(means, dim=-1)


def predict(image_features: Tensor, head: Tensor) -> Tensor:
    """The class [n] of the largest cosine; of equal ones the first."""
    return (image_features @ head.T).argmax(dim=1)


def merge_equal_names(class_names: Sequence[str]) -> Tensor:
    """Class number -> the first class of the same name, [classes]."""
    first: dict[str, int] = {}
    return torch.tensor([first.setdefault(name, i) for i, name in enumerate(class_names)])
