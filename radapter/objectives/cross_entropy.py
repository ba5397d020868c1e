"""Cross-entropy of the trained head's classes: the usual loss of fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radapter.classes import first_of_name
from radapter.errors import UsageError
from radapter.losses import cross_entropy
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Unit

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"smoothing": 0.1})


def term(context: Context, *, smoothing: Unit = 0.0) -> Term:
    """See `radapter.losses.cross_entropy`, with the weights of pictures that a head may have
    (`sample_weights`). It trains the recipe's `head`, and of the image tower
    what the method trains; texts are not encoded for it.

    Args:
        context: the head and the training data.
        smoothing: share of the target probability that is spread evenly over all classes, 0 to 1.

    Raises:
        UsageError: the recipe has no head.
    """
    head = context.head
    if head is None:
        raise UsageError(
            f"{context.place}: cross-entropy trains a head, and the recipe has none: add "
            "head={name: linear}"
        )
    return of_head(head, context.dataset.class_names, smoothing=smoothing)


def of_head(head: nn.Module, names: Sequence[str], *, smoothing: float = 0.0) -> Term:
    """The same for any head.

    Args:
        head: from unit-norm features of pictures to logits, those of one name being one.
        names: of the classes that `batch["groups"]` numbers.
        smoothing: see `term`.
    """
    first = first_of_name(names)
    row = {number: place for place, number in enumerate(dict.fromkeys(first))}
    rows = torch.tensor([row[number] for number in first])  # class -> its place in the head

    weigh = getattr(head, "sample_weights", None)

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        groups = batch["groups"]
        logits = head(features.images)
        return cross_entropy(
            logits,
            rows.to(groups.device)[groups],
            smoothing=smoothing,
            weights=weigh(features.images) if weigh else None,
        )

    return Term(loss, reads_texts=False)
