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
from radapter.data.clips import Item, prepared, stacked
from radapter.errors import BrokenInput
from radapter.evaluation import cache as caching
from radapter.runtimes import Runtime
from radapter.runtimes.pytorch import PyTorchRuntime, moved


@dataclass(frozen=True)
class Encoded:
    """One batch: what could be read, in order, and what could not."""

    indices: list[int]
    features: Tensor
    """[len(indices), dim], float32, unit norm"""
    failed: dict[int, str]
    """Index -> the message that names the picture"""


def encode_batches(
    runtime: Runtime | Together,
    preprocess: Callable[[Image.Image], Tensor],
    read: Callable[[int], Item],
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
        read: index -> picture or clip; called from several threads.
        workers: threads that decode and resize; None: as many as `processors.decoders` says.
    """

    def prepare(index: int) -> Tensor | str:
        try:
            return prepared(preprocess, read(index))
        except BrokenInput as error:
            return str(error)

    together = runtime if isinstance(runtime, Together) else Together([runtime])
    places = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
    own = places[distributed.rank() :: distributed.world_size()]
    with ThreadPoolExecutor(workers or processors.decoders()) as pool:

        def begin(place: int) -> list[Future[Tensor | str]]:
            return [pool.submit(prepare, i) for i in own[place]] if place < len(own) else []

        coming = begin(0)
        for place in range(math.ceil(len(places) / distributed.world_size())):
            futures, coming = coming, begin(place + 1)
            batch = own[place] if futures else []
            found = [future.result() for future in futures]
            good = [i for i, item in zip(batch, found, strict=True) if not isinstance(item, str)]
            pixels = [item for item in found if not isinstance(item, str)]
            failed = {i: e for i, e in zip(batch, found, strict=True) if isinstance(e, str)}
            features = together.encode_image(stacked(pixels)) if pixels else None
            encoded = Encoded(good, torch.empty(0, 0) if features is None else features, failed)
            yield from [encoded] if distributed.world_size() == 1 else _of_all_ranks(encoded)


def _of_all_ranks(own: Encoded) -> Iterator[Encoded]:
    """The batches of one turn, in the order of the ranks; a rank that had none left gives none."""
    about = [own.indices, list(own.failed.items()), own.features.shape[1]]
    said = distributed.all_gather_object(about)
    width = max(columns for *_, columns in said)
    ends = list(itertools.accumulate((len(indices) for indices, *_ in said), initial=0))
    rows = own.features.reshape(len(own.indices), width)
    rows = distributed.gather(rows, ends[distributed.rank()], ends[-1])
    for start, (indices, failed, _) in zip(ends, said, strict=False):
        if indices or failed:
            yield Encoded(indices, rows[start : start + len(indices)], dict(map(tuple, failed)))


@dataclass(frozen=True)
class Together:
    """Several models as one, their features side by side: each picture is read once for all."""

    runtimes: Sequence[Runtime]

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> features [n, models * dim]; of clips
        [n, frames, 3, height, width] those of whole clips."""
        first = self.runtimes[0]
        if isinstance(first, PyTorchRuntime):  # to the device once, not once for each model
            pixel_values = moved(pixel_values, first.place)
        return torch.cat([_encoded(runtime, pixel_values) for runtime in self.runtimes], dim=1)


def _encoded(runtime: Runtime, pixels: Tensor) -> Tensor:
    return runtime.encode_video(pixels) if pixels.dim() == 5 else runtime.encode_image(pixels)


class ReadAlone:
    """In the place of a runtime where it has only to be known which pictures can be read."""

    identity = None

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, ...] -> zeros [n, 1]."""
        return pixel_values.new_zeros(len(pixel_values), 1, dtype=torch.float32)

    encode_video = encode_image


def encode_set(
    runtimes: Sequence[Runtime],
    preprocess: Callable[[Image.Image], Tensor],
    preprocess_cfg: Mapping[str, Any],
    pictures: Sequence[tuple[str, Dataset, int]],
    *,
    batch_size: int,
    cache: caching.Cache | None,
    on_batch: Callable[[int, dict[str, str]], None] = lambda read, failed: None,
) -> tuple[list[Tensor], dict[str, str]]:
    """Of each model the features of a set's pictures in their order, and by name messages of
    unreadable ones. A picture is read once for all models whose features are not in the cache.

    Args:
        runtimes: models of one form: they take the same pixels and give features of one width.
        preprocess_cfg: what `preprocess` does, as open_clip names it.
        pictures: name, data set and place in it.
        batch_size: pictures encoded together; frames, where they are clips.
        cache: None: neither read nor written.
        on_batch: called with how many could be read of some more pictures, and by name what could
            not; all of them at once if they are in the cache.
    """
    batch_size = max(1, batch_size // max((d.frames or 1 for _, d, _ in pictures), default=1))
    keys: Sequence[caching.Key | None] = [None] * len(runtimes)
    if cache is not None:
        keys = caching.pictures_keys(runtimes, preprocess_cfg, pictures, batch_size)

    def read(place: int) -> Item:
        _, dataset, index = pictures[place]
        return dataset.read(index)

    def message(place: int) -> str | None:
        try:
            read(place)
        except BrokenInput as error:
            return str(error)
        return None

    entries = [caching.read(cache, key) for key in keys]
    kept = [entry for entry in entries if entry is not None]
    if len(kept) == len(runtimes):
        # A picture that could not be read is tried again: its disk may have been away.
        broken = kept[0][1]["broken"]
        said = {pictures[place][0]: message(place) for place in broken}
        failed = {name: text for name, text in said.items() if text is not None}
        if len(failed) == len(said) and all(more["broken"] == broken for _, more in kept):
            on_batch(len(pictures) - len(failed), failed)
            return [features for features, _ in kept], failed
    # Beside what is encoded now, what is kept is of use where it is of every picture.
    found = {
        number: entry[0]
        for number, entry in enumerate(entries)
        if entry is not None and not entry[1]["broken"]
    }
    todo = [number for number in range(len(runtimes)) if number not in found]
    several = Together([runtimes[number] for number in todo])
    places = range(len(pictures))
    chunks: list[Tensor] = []
    read_now: list[int] = []
    failed = {}
    for batch in encode_batches(several, preprocess, read, places, batch_size=batch_size):
        said_now = {pictures[place][0]: text for place, text in batch.failed.items()}
        on_batch(len(batch.indices), said_now)
        failed |= said_now
        read_now += batch.indices
        chunks += [batch.features] if batch.indices else []
    if not chunks:
        return [torch.empty(0, 0) for _ in runtimes], failed
    if failed:
        found = {number: features[read_now] for number, features in found.items()}
    broken = sorted(set(places) - set(read_now))
    for number, features in zip(todo, torch.cat(chunks).chunk(len(todo), dim=1), strict=True):
        found[number] = features.contiguous()
        caching.write(cache, keys[number], found[number], {"broken": broken})
    return [found[number] for number in range(len(runtimes))], failed
