"""Retrieval among the items of a set: ranks from features, in chunks, ties counted against us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIMILARITIES = 1 << 24
"""How many similarities are held at a time: 64 MB, and 16 MB of which of them are below the best"""


def best_ranks(
    queries: Tensor,
    targets: Tensor | None,
    positives: Sequence[Sequence[int]],
    chunk: int | None = None,
    copies: Tensor | None = None,
    which: Sequence[int] | None = None,
) -> Tensor:
    """The rank, from 0, of the best positive of each query.

    The rank is the number of non-positives whose similarity is at least that of the best
    positive: a tie counts as a miss. Similarities are formed a few queries at a time, never
    queries x targets, so memory hardly grows with either.

    Args:
        queries: unit-norm features [queries, dim], or of what `which` chooses from.
        targets: unit-norm features [targets, dim]; None: `queries` are similarities themselves,
            [queries, targets].
        positives: for each query the numbers of its right targets, at least one; with `copies`
            one is named as often as that many of its copies are right.
        chunk: queries at a time; None: as many as `SIMILARITIES` allows.
        copies: how many equal targets each one stands for, int [targets]; None: one. Copies so
            counted tie exactly, which equal rows of a matrix product need not.
        which: the row of each query; None: each row is one.

    Returns:
        int64 [queries]; recall at k is the share below k.
    """
    number = queries.shape[1] if targets is None else len(targets)
    chunk = chunk or max(1, SIMILARITIES // number)
    several = None if copies is None else (copies > 1).nonzero()[:, 0]
    ranks = []
    for start in range(0, len(positives), chunk):
        asking = slice(start, start + chunk)
        rows_of = queries[asking if which is None else which[asking]]
        similarity = rows_of if targets is None else rows_of @ targets.T
        right = positives[asking]
        rows = torch.tensor([row for row, numbers in enumerate(right) for _ in numbers])
        columns = torch.tensor([number for numbers in right for number in numbers])
        own = similarity[rows, columns]
        best = torch.full((len(right),), -torch.inf).to(own)
        best = best.scatter_reduce(0, rows, own, "amax")
        below = similarity < best[:, None]  # what is no number is not: it counts against us too
        # NumPy counts a row of truth values at a tenth of the time that torch's sum takes.
        rank = number - torch.from_numpy(np.count_nonzero(below.numpy(), axis=1))
        if several is not None and copies is not None and len(several):
            rank += (~below[:, several] * (copies[several] - 1)).sum(dim=1, dtype=torch.int64)
        ranks.append(rank.index_add(0, rows, below[rows, columns].to(rank) - 1))
    return torch.cat(ranks)


@dataclass(frozen=True)
class CaptionTask:
    """Retrieval between pictures and their captions, both ways; texts and pictures are numbers."""

    texts: list[str]
    """Distinct"""
    queries: list[int]
    """The text of each query for pictures"""
    pictures_of: list[list[int]]
    """The right pictures of each query"""
    captions_of: list[list[int]]
    """The right texts of each picture"""
    copies: Tensor
    """How many captions among which a picture looks each text stands for, int32 [texts]"""


def caption_task(captions: Sequence[Sequence[str]], apart: bool = False) -> CaptionTask:
    """The task that the captions of each picture make.

    Args:
        captions: of each picture, at least one.
        apart: identical captions are one text with several right pictures; or, if this is set,
            each is a query of its own and right for its own picture alone, as in the published
            tables on Flickr30K and COCO.

    Raises:
        ValueError: a picture has no caption, so that no query could find it.
    """
    if not all(captions):
        raise ValueError("retrieval needs a caption for every picture")
    number: dict[str, int] = {}
    queries: list[int] = []
    pictures_of: list[list[int]] = []
    captions_of: list[list[int]] = []
    for picture, texts in enumerate(captions):
        own = [
            number.setdefault(text, len(number))
            for text in (texts if apart else dict.fromkeys(texts))
        ]
        captions_of.append(own)
        for text in own:
            if apart or text == len(pictures_of):  # a text that is new has the next number
                queries.append(text)
                pictures_of.append([picture])
            else:
                pictures_of[text].append(picture)
    copies = torch.bincount(torch.tensor(queries), minlength=len(number)).int()
    return CaptionTask(list(number), queries, pictures_of, captions_of, copies)


def shared_captions(captions: Sequence[Sequence[str]]) -> int:
    """How many captions another picture has too."""
    pictures: dict[str, set[int]] = {}
    for picture, texts in enumerate(captions):
        for text in texts:
            pictures.setdefault(text, set()).add(picture)
    return sum(len(pictures[text]) > 1 for texts in captions for text in texts)


def chance(positives: Sequence[Sequence[int]], targets: int) -> float:
    """Expected recall at 1 of a random order."""
    return sum(len(right) for right in positives) / (len(positives) * targets)
