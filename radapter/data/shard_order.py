"""An order for data in shards: shards are shuffled, and samples in a buffer, as by WebDataset.

The whole order of an epoch follows from the seed. So it can be gone on with in the middle, every
sample is seen once, and the number of devices and of worker processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def shard_order(
    shards: Sequence[int], batch_size: int, generator: torch.Generator, *, buffer: int, streams: int
) -> Tensor:
    """The items of one epoch, batch after batch, [steps * batch_size].

    Shards in random order, all their items in a row, are cut into `streams` equal parts; each batch
    takes as many from every part, in the same order. So a device that takes its slice of each batch
    reads few shards of its own, each nearly from start to end. Within a part, items go through a
    shuffle buffer: a random one of the `buffer` next ones leaves, the next one takes its place.

    Args:
        shards: the shard of every item, [items]; items of one shard in the order that they lie in.
        batch_size: a multiple of `streams`.
        generator: of the epoch.
        buffer: how many items are held for drawing; 1 keeps the order within a part.
        streams: parts that are read side by side.
    """
    of = torch.as_tensor(shards)
    numbers, of = of.unique(return_inverse=True)
    place = torch.randperm(len(numbers), generator=generator)[of]
    in_a_row = place.argsort(stable=True)
    length, each = len(in_a_row) // streams, batch_size // streams
    steps = length // each
    parts = []
    for stream in range(streams):
        part = in_a_row[stream * length : (stream + 1) * length]
        parts.append(_through_buffer(part, buffer, generator)[: steps * each].view(steps, each))
    return torch.cat(parts, dim=1).flatten()


def _through_buffer(items: Tensor, buffer: int, generator: torch.Generator) -> Tensor:
    held = items[:buffer].tolist()
    draws = torch.rand(len(items), generator=generator, dtype=torch.float64).tolist()
    out = []
    for draw, item in zip(draws, items[buffer:].tolist(), strict=False):
        chosen = int(draw * len(held))
        out.append(held[chosen])
        held[chosen] = item
    rest = torch.randperm(len(held), generator=generator)
    return torch.cat([items.new_tensor(out), items.new_tensor(held)[rest]])
