"""Nothing of the towers is trained: with a head, a linear probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from radapter.methods.attached import Attached, Values
from radapter.registry import Average

EXAMPLES: tuple[dict[str, Any], ...] = ({},)


def attach(model: nn.Module, *, average: Average = Average(momentum=0.0)) -> Attached:
    """Freeze an open_clip model.

    Args:
        model: an open_clip model.
        average: moving average of the head, what is kept after training; off by default.
    """
    model.requires_grad_(False)

    def hold(kept: Values | None, alpha: float) -> None:
        pass

    return Attached(model, dict[str, nn.Parameter](), hold, average)


def merge(
    base: Mapping[str, Tensor], stored: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """The base, whatever alpha is."""
    return {name: tensor.clone() for name, tensor in base.items()}
