"""How batches get to the device: as bytes through pinned memory, the next one during a step.

On a CPU nothing of this happens: batches pass as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor

ON_DEVICE = ("images", "text_of", "groups", "domains", "own")
"""What of a batch the device needs; token ids are joined with others and cut first."""


class Pixels:
    """uint8 pictures [batch, 3, height, width] -> what a tower takes, in fp32 on their device: bit
    for bit torchvision's `ToDtype(torch.float32, scale=True)` and `Normalize(mean, std)`. So too
    clips [batch, frames, 3, height, width]; what one lacks, -1 in 16-bit integers, becomes NaN.
    Pictures in floats are prepared already, and features [batch, dim] too."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device):
        self.mean, self.std = (
            torch.tensor(list(values), dtype=torch.float32, device=device).view(-1, 1, 1)
            for values in (mean, std)
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        if pictures.is_floating_point():
            return pictures
        pixels = pictures.to(torch.float32).mul_(1.0 / 255).sub_(self.mean).div_(self.std)
        return pixels if pictures.dtype == torch.uint8 else pixels.masked_fill_(pictures < 0, nan)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it does; on a CPU as it is."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def ahead(batches: Iterable[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """Batches with their tensors on the device, the next one copied while one is used; on a CPU as
    they are. An error of the next one comes before the one at hand is used."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    following: tuple[dict[str, Any], torch.cuda.Event] | None = None

    def ready(batch: dict[str, Any], copied: torch.cuda.Event) -> dict[str, Any]:
        now = torch.cuda.current_stream(device)
        now.wait_event(copied)
        for name in ON_DEVICE:
            if name in batch:
                batch[name].record_stream(now)  # else its memory were the next copy's too soon
        return batch

    for batch in batches:
        with torch.cuda.stream(copying):
            copy = {name: moved(batch[name], device) for name in ON_DEVICE if name in batch}
            copied = torch.cuda.Event()
            copied.record(copying)
        if following is not None:
            yield ready(*following)
        following = {**batch, **copy}, copied
    if following is not None:
        yield ready(*following)
