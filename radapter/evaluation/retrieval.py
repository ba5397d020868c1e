"""Retrieval among the items of a set: ranks from features, in chunks, ties counted against us."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIMILARITIES = 1 << 24
"""How many similarities are held at a time: 64 MB; with copies and masks some 300 MB"""


def best_ranks(
    queries: Tensor,
    targets: Tensor,
    positives: Sequence[Sequence[int]],
    chunk: int | None = None,
) -> Tensor:
    """The rank, from 0, of the best positive of each query.

    The rank is the number of non-positives whose similarity is at least that of the best
    positive: a tie counts as a miss. Similarities are formed a few queries at a time, never
    queries x targets, so memory hardly grows with either.

    Args:
        queries: unit-norm features [queries, dim].
        targets: unit-norm features [targets, dim].
        positives: for each query the numbers of its right targets, at least one.
        chunk: queries at a time; None: as many as `SIMILARITIES` allows.

    Returns:
        int64 [queries]; recall at k is the share below k.
    """
    chunk = chunk or max(1, SIMILARITIES // len(targets))
    ranks = []
    for start in range(0, len(queries), chunk):
        similarity = queries[start : start + chunk] @ targets.T
        is_positive = torch.zeros_like(similarity, dtype=torch.bool)
        for row, right in enumerate(positives[start : start + chunk]):
            is_positive[row, list(right)] = True
        best = similarity.masked_fill(~is_positive, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(((similarity >= best) & ~is_positive).sum(dim=1))
    return torch.cat(ranks)


def caption_positives(
    captions: Sequence[Sequence[str]],
) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """Distinct captions, the pictures of each, and the captions of each picture.

    Identical texts are one caption with several right pictures.
    """
    number: dict[str, int] = {}
    pictures_of: list[list[int]] = []
    captions_of: list[list[int]] = []
    for picture, texts in enumerate(captions):
        own = []
        for text in dict.fromkeys(texts):
            if text not in number:
                number[text] = len(number)
                pictures_of.append([])
            pictures_of[number[text]].append(picture)
            own.append(number[text])
        captions_of.append(own)
    return list(number), pictures_of, captions_of


def chance(positives: Sequence[Sequence[int]], targets: int) -> float:
    """Expected recall at 1 of a random order."""
    return sum(len(right) for right in positives) / (len(positives) * targets)
