"""The optimizer and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch

from radapter.recipe import Optimisation


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


def adamw(parameters: list[torch.nn.Parameter], o: Optimisation) -> torch.optim.AdamW:
    """AdamW; weight decay spares biases, norms and scales, as everywhere in the field."""
    matrices = [p for p in parameters if p.dim() >= 2]
    others = [p for p in parameters if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=o.lr,
        betas=o.betas,
        eps=o.eps,
        weight_decay=o.weight_decay,
        fused=True,
    )
