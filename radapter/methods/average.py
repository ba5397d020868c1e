"""Exponential moving average of what is trained (R-Adapter, section 3.2; as in mean teachers)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class MovingAverage:
    """mean <- m * mean + (1 - m) * value; warming up, m_t = min(m, (1 + t) / (10 + t))."""

    def __init__(self, values: Iterable[tuple[str, Tensor]], settings: dict[str, Any]):
        self.momentum: float = settings.get("momentum", 0.0)
        self.warmup: bool = settings.get("warmup", False)
        self.mean = {name: value.detach().clone() for name, value in values}
        self.updates = 0
        self.start_share = 1.0
        """The share of its start that the average still holds, 0 to 1."""

    @torch.no_grad()
    def update(self, values: Iterable[tuple[str, Tensor]]) -> None:
        m = self.momentum
        if self.warmup:
            m = min(m, (1 + self.updates) / (10 + self.updates))
        if given := dict(values):
            means = [self.mean[name] for name in given]
            torch._foreach_lerp_(means, list(given.values()), 1.0 - m)  # a kernel for all, on a GPU
        self.updates += 1
        self.start_share *= m

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to go on exactly."""
        state = {f"average.{name}": value for name, value in self.mean.items()}
        # float64 holds both exactly: the count is far below 2^53.
        progress = torch.tensor([self.updates, self.start_share], dtype=torch.float64)
        return {**state, "progress": progress}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, value in self.mean.items():
            value.copy_(state[f"average.{name}"])
        self.updates = int(state["progress"][0])
        self.start_share = float(state["progress"][1])
