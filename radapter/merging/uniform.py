"""Uniform soup (Wortsman et al., ICML 2022): the mean of what several runs have changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from radapter.merging.deltas import State, moved


def combine(base: State, tuned: Sequence[State]) -> tuple[State, dict[str, Any]]:
    """The weights that changed, and no further facts.

    Args:
        base: the weights that all runs started from.
        tuned: of each run, the merged weights that differ from these.
    """
    return moved(base, tuned, lambda changes: torch.stack(changes).mean(0)), {}
