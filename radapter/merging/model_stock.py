"""Model Stock (Jang et al., ECCV 2024): the mean, drawn towards the base as far as runs disagree.

Per tensor, of N runs with the changes d_1 ... d_N:

    t = N cos / (1 + (N - 1) cos),    w = w0 + t * mean(d),    cos: the mean cosine of two changes

Runs that agree (cos = 1) keep their mean; runs whose changes are orthogonal keep the base.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from radapter.merging.deltas import State, moved

ALPHA = 1.0
"""The rule itself says how much of the change is kept."""


def combine(base: State, tuned: Sequence[State]) -> tuple[State, dict[str, Any]]:
    """The weights that changed, and the smallest, mean and largest `ratio` t over tensors.

    A cosine below 0, where the formula leads away from all runs, counts as 0.

    Args:
        base: the weights that all runs started from.
        tuned: of each run, the merged weights that differ from these.
    """
    ratios: list[float] = []

    def drawn(changes: list[Tensor]) -> Tensor:
        ratios.append(ratio(changes))
        return ratios[-1] * torch.stack(changes).mean(0)

    state = moved(base, tuned, drawn)
    if not ratios:
        return state, {}
    summary = {
        "smallest": min(ratios),
        "mean": statistics.fmean(ratios),
        "largest": max(ratios),
    }
    return state, {"ratio": summary}


def ratio(changes: Sequence[Tensor]) -> float:
    """t of a tensor, from what each run changed of it."""
    flat = [change.flatten() for change in changes]
    cosines = [
        float(torch.nn.functional.cosine_similarity(a, b, dim=0))
        for a, b in itertools.combinations(flat, 2)
    ]
    cosine = max(0.0, statistics.fmean(cosines))
    return len(flat) * cosine / (1 + (len(flat) - 1) * cosine)
