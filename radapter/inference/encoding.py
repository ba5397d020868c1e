"""Pictures to features: read by several threads, encoded in batches, two in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from radapter.data.pictures import Pictures
from radapter.errors import BrokenInput
from radapter.inference.opening import OpenModel

BATCH = 64
"""Pictures encoded together. Fixed: the last bits of features depend on it."""


@dataclass(frozen=True)
class Encoded:
    """One batch: what could be read, in order, and what could not."""

    indices: list[int]
    features: Tensor
    """[len(indices), dim], float32, unit norm"""
    failed: dict[int, str]
    """Index -> the message that names the picture"""


def encode_pictures(
    model: OpenModel, pictures: Pictures, indices: Sequence[int], *, workers: int | None = None
) -> Iterator[Encoded]:
    """Features of the pictures at `indices`, a batch at a time; unreadable ones are left out.

    Memory: two batches of pixels, whatever the number of pictures. A batch is what `BATCH` places
    of `indices` hold, so the same indices give the same batches and the same bits.

    Args:
        workers: threads that decode and resize; None: one a processor, at most 8.
    """

    def read(index: int) -> Tensor | str:
        try:
            return model.preprocess(pictures.read(index))
        except BrokenInput as error:
            return str(error)

    places = [list(indices[i : i + BATCH]) for i in range(0, len(indices), BATCH)]
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:

        def begin(place: int) -> list[Future[Tensor | str]]:
            return [pool.submit(read, i) for i in places[place]] if place < len(places) else []

        coming = begin(0)
        for place, batch in enumerate(places):
            futures, coming = coming, begin(place + 1)
            found = [future.result() for future in futures]
            good = [i for i, item in zip(batch, found, strict=True) if not isinstance(item, str)]
            pixels = [item for item in found if not isinstance(item, str)]
            failed = {i: e for i, e in zip(batch, found, strict=True) if isinstance(e, str)}
            features = model.runtime.encode_image(torch.stack(pixels)) if pixels else None
            yield Encoded(good, torch.empty(0, 0) if features is None else features, failed)
