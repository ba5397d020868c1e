"""Sums of what runs have changed: of merged weights, never of factors.

The mean of products is not the product of means: low-rank factors of two runs are averaged only
once each run's are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def changed(base: State, merged: State) -> dict[str, Tensor]:
    """The tensors of a merged model that are not the base model's."""
    return {name: value for name, value in merged.items() if not torch.equal(value, base[name])}


def moved(
    base: State, tuned: Sequence[State], of: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    """The base plus what `of` makes of the runs' changes of a tensor, for each that any of them
    changed. Computed in float64."""
    names = [name for name in base if any(name in state for state in tuned)]
    found: dict[str, Tensor] = {}
    for name in names:
        start = base[name].double()
        changes = [state.get(name, base[name]).double() - start for state in tuned]
        found[name] = (start + of(changes)).to(base[name].dtype)
    return found
