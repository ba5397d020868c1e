"""Pictures to features: read by several threads, encoded in batches, two in memory at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from radapter import distributed, processors
from radapter.data import Dataset
from radapter.errors import BrokenInput
from radapter.evaluation import cache as caching
from radapter.runtimes import Runtime


@dataclass(frozen=True)
class Encoded:
    """One batch: what could be read, in order, and what could not."""

    indices: list[int]
    features: Tensor
    """[len(indices), dim], float32, unit norm"""
    failed: dict[int, str]
    """Index -> the message that names the picture"""


def encode_batches(
    runtime: Runtime,
    preprocess: Callable[[Image.Image], Tensor],
    read: Callable[[int], Image.Image],
    indices: Sequence[int],
    *,
    batch_size: int,
    workers: int | None = None,
) -> Iterator[Encoded]:
    """Features of the pictures at `indices`, a batch at a time; unreadable ones are left out.

    Memory: two batches of pixels, whatever the number of pictures. A batch is what `batch_size`
    places of `indices` hold, so the same indices give the same batches and the same bits. Several
    ranks take batches by turns, and each is given those of all.

    Args:
        read: index -> picture; called from several threads.
        workers: threads that decode and resize; None: as many as `processors.decoders` says.
    """

    def prepare(index: int) -> Tensor | str:
        try:
            return preprocess(read(index))
        except BrokenInput as error:
            return str(error)

    places = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
    own = places[distributed.rank() :: distributed.ranks()]
    with ThreadPoolExecutor(workers or processors.decoders()) as pool:

        def begin(place: int) -> list[Future[Tensor | str]]:
            return [pool.submit(prepare, i) for i in own[place]] if place < len(own) else []

        coming = begin(0)
        for place in range(math.ceil(len(places) / distributed.ranks())):
            futures, coming = coming, begin(place + 1)
            batch = own[place] if futures else []
            found = [future.result() for future in futures]
            good = [i for i, item in zip(batch, found, strict=True) if not isinstance(item, str)]
            pixels = [item for item in found if not isinstance(item, str)]
            failed = {i: e for i, e in zip(batch, found, strict=True) if isinstance(e, str)}
            features = runtime.encode_image(torch.stack(pixels)) if pixels else None
            encoded = Encoded(good, torch.empty(0, 0) if features is None else features, failed)
            yield from [encoded] if distributed.ranks() == 1 else _of_all_ranks(encoded)


def _of_all_ranks(own: Encoded) -> Iterator[Encoded]:
    """The batches of one turn, in the order of the ranks; a rank that had none left gives none."""
    about = [own.indices, list(own.failed.items()), own.features.shape[1]]
    said = distributed.everyone(about)
    width = max(columns for *_, columns in said)
    ends = list(itertools.accumulate((len(indices) for indices, *_ in said), initial=0))
    rows = own.features.reshape(len(own.indices), width)
    rows = distributed.gather(rows, ends[distributed.rank()], ends[-1])
    for start, (indices, failed, _) in zip(ends, said, strict=False):
        if indices or failed:
            yield Encoded(indices, rows[start : start + len(indices)], dict(map(tuple, failed)))


def encode_set(
    runtime: Runtime,
    preprocess: Callable[[Image.Image], Tensor],
    preprocess_cfg: Mapping[str, Any],
    pictures: Sequence[tuple[str, Dataset, int]],
    *,
    batch_size: int,
    cache: caching.Cache | None,
) -> Iterator[tuple[Tensor, dict[str, str]]]:
    """Features of a set's pictures in their order, and by name messages of unreadable ones.

    One pair a batch, or a single one if the features are in the cache.

    Args:
        preprocess_cfg: what `preprocess` does, as open_clip names it.
        pictures: name, data set and place in it.
        cache: None: neither read nor written.
    """
    key = None
    if cache is not None:
        key = caching.pictures_key(runtime, preprocess_cfg, pictures, batch_size)

    def read(place: int) -> Image.Image:
        _, dataset, index = pictures[place]
        return dataset.read(index)

    def message(place: int) -> str | None:
        try:
            read(place)
        except BrokenInput as error:
            return str(error)
        return None

    kept = caching.read(cache, key)
    if kept is not None:
        # What could not be read is looked at again: it may have been a disk that was away.
        said = {pictures[place][0]: message(place) for place in kept[1]["broken"]}
        failed = {name: text for name, text in said.items() if text is not None}
        if len(failed) == len(said):
            yield kept[0], failed
            return
    chunks, broken = [], []
    places = range(len(pictures))
    for batch in encode_batches(runtime, preprocess, read, places, batch_size=batch_size):
        yield batch.features, {pictures[place][0]: text for place, text in batch.failed.items()}
        chunks += [batch.features] if batch.indices else []
        broken += list(batch.failed)
    if chunks:
        caching.write(cache, key, torch.cat(chunks), {"broken": broken})
