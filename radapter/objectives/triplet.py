"""Triplets of a picture with the averaged model's features of pictures before it."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.objectives.terms import Batch, Context, Features, Queue, Term
from radapter.registry import Count

EXAMPLES: tuple[dict[str, Any], ...] = ({"margin": 1.0, "size": 3},)


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    margin: Annotated[float, Field(ge=0.0)] = 0.2,
    size: Count = 20,
    pairs: Count = 2,
) -> Term:
    """Mean over pictures, and over pairs drawn for each, of max(0, |v - p| - |v - n| + margin)
    (UCDR-Adapter, Jiang et al., WACV 2025).

    p is drawn from the last features of the picture's class, n from those of all others, which the
    method's average has given: those of this batch, and of batches before it. A picture of whose
    class there are all or none counts nowhere.

    Args:
        context: what is trained.
        weight: what the term is multiplied by in the loss.
        margin: by how much another class is to be farther away.
        size: features that are kept of each class.
        pairs: of a right and a wrong feature, that are drawn for each picture.

    Raises:
        UsageError: nothing of the image tower is trained, or the method has no average.
    """
    context.needs_trained("triplet", "image")
    if not context.attached.settings.momentum:
        raise UsageError(
            f"{context.place}: triplet could have no effect, as the average whose features it "
            "keeps is the model itself: set "
            '"method.average={momentum: 0.999, keep: last}".'
        )
    queue = Queue(size, of="groups", values=len(context.dataset.class_names) or 1)

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        queue.append({"images": teacher.images, "groups": batch["groups"]})
        kept, now = queue.next, features.images
        right = batch["groups"][:, None] == kept["groups"]
        counts = right.any(dim=1) & ~right.all(dim=1)
        # Rows that do not count draw from all: no draw may be from none.
        ends = [
            kept["images"][torch.multinomial((own | ~counts[:, None]).float(), pairs, True)]
            for own in (right, ~right)
        ]
        near, far = ((now[:, None] - end).norm(dim=2) for end in ends)
        each = (near - far + margin).clamp(min=0).mean(dim=1)
        return (each * counts).sum() / counts.sum().clamp(min=1)

    return Term(loss, teacher="average", reads_texts=False, queue=queue, weight=weight)
