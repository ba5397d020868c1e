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


def best_caption_ranks(
    videos: Tensor,
    texts: Tensor | None,
    captions_of: Sequence[Sequence[int]],
    apart: bool,
    chunk: int | None = None,
) -> Tensor:
    """The rank, from 0, of each video among all, each standing for its caption most similar to the
    one that asks (CLIP4Clip's video-to-text retrieval of videos with several captions).

    A tie counts as a miss, and memory is bounded, as in `best_ranks`.

    Args:
        videos: unit-norm features [videos, dim].
        texts: unit-norm features [texts, dim]; None: `videos` are similarities themselves,
            [videos, texts].
        captions_of: the texts of each video, at least one.
        apart: whether an asking video's caption that another video has too counts for that one;
            if not, it is right for both.
        chunk: videos that ask at a time; None: as many as `SIMILARITIES` allows.

    Returns:
        int64 [videos].
    """
    columns = torch.tensor([number for own in captions_of for number in own])
    sizes = [len(own) for own in captions_of]
    starts = np.cumsum([0, *sizes[:-1]])
    chunk = chunk or max(1, SIMILARITIES // len(columns))
    ranks = []
    for start in range(0, len(captions_of), chunk):
        asking = range(start, min(start + chunk, len(captions_of)))
        rows = videos[start : asking.stop]
        similarity = rows if texts is None else rows @ texts.T
        # The largest of a video's captions; what is no number stays none, and counts against us.
        found = np.maximum.reduceat(similarity[:, columns].numpy(), starts, axis=1)
        best = found[range(len(asking)), asking]
        if not apart:
            others = similarity.clone()
            for row, video in zip(others, asking, strict=True):
                row[list(captions_of[video])] = -torch.inf
            found = np.maximum.reduceat(others[:, columns].numpy(), starts, axis=1)
        ahead = ~(found < best[:, None])
        ahead[range(len(asking)), asking] = False
        ranks.append(torch.from_numpy(np.count_nonzero(ahead, axis=1)))
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
