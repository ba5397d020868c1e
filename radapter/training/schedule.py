"""The learning rate of a step."""

from __future__ import annotations

import math


def learning_rate(
    step: int,
    *,
    steps: int,
    peak: float,
    warmup_steps: int = 0,
    final: float = 0.0,
    added: bool = False,
) -> float:
    """Linear warm-up to `peak`, then a cosine that ends at `final`, from `peak`, or from the sum of
    both if `final` is `added` to it; `step` counts from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    height = peak if added else peak - final
    return final + height * 0.5 * (1.0 + math.cos(math.pi * progress))
