"""Ways of adapting a model, one file each. To add one: a file, a line here, its settings in recipe.

A method is a module with two functions:

    attach(model, **settings) -> Attached      freeze the model, attach what is trained
    merge(base, stored, alpha) -> state dict   a plain model from base weights and stored tensors
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Protocol

from torch import Tensor, nn

from radapter.methods import full, lora, r_adapter

METHODS: dict[str, ModuleType] = {"r-adapter": r_adapter, "full": full, "lora": lora}


class Attached(Protocol):
    """What `attach` returns: the trained part of a model."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer updates."""

    def update_average(self) -> None:
        """Take the present values into the moving average; call it after each optimizer step."""

    def start_share(self) -> float:
        """The share of its start that the moving average still holds, 0 to 1."""

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to go on training exactly."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""

    switched_off: Callable[[], AbstractContextManager[None]] | None
    """A context in which the model is the zero-shot one; None if its own weights are trained."""

    def stored(self) -> dict[str, Tensor]:
        """The averaged tensors, by name, that `merge` takes."""


__all__ = ["METHODS", "Attached", "full", "lora", "r_adapter"]
