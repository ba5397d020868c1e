"""Ways of adapting a model, one file each. To add one: a file, its settings in the recipe, a line
in `registry`.

A method is a module with two functions:

    attach(model, **settings) -> Attached      freeze the model, attach what is trained
    merge(base, stored, alpha) -> state dict   a plain model from base weights and stored tensors
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods import full, lora, r_adapter


class Attached(Protocol):
    """What `attach` returns: the trained part of a model."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimizer updates."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The same without names."""

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


def check_gradients(attached: Attached) -> None:
    """After the gradients of a step: an optimizer passes over a parameter that has none.

    Raises:
        UsageError: names the first such parameter.
    """
    without = [name for name, p in attached.named_parameters() if p.grad is None]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise UsageError(
            f"The loss does not reach {without[0]}{more}: it gets no gradient and would stay as it "
            "is. Leave its tower out with method.towers."
        )


__all__ = ["Attached", "check_gradients", "full", "lora", "r_adapter"]
