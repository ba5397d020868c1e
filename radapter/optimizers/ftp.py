"""FTP, Fast Trainable Projection (Tian et al., NeurIPS 2023): Adam, held near the start by radii.

Each tensor has a radius r. After Adam's step a row (an output of a matrix; a whole bias) that is
further from its start w0 than that is brought back:

    c = v - w0,   w = w0 + min(1, r / |c|) c        |c|: the sum of absolute values of a row

The radius is trained by Adam, from the gradient of the training loss that the next step has:

    dloss/dr = sum over rows of  <g, c> / |c|

with the c of the step before. It starts at 1e-8, so training starts at w0 and each tensor is let go
as far as the loss asks for. What training from another run has moved already starts at the radius
that holds all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from radapter.methods.attached import Attached
from radapter.optimizers.adamw import decayed
from radapter.registry import Momentum, Unit

COPIES = 3
EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"k": 0.5, "radius_lr": 0.1})
SMALLEST = 1e-8
"""Radius; what is added to the norm of a row; epsilon of Adam for radii"""
BETAS = 0.9, 0.999
"""Of Adam for radii"""


def row_norms(change: Tensor) -> Tensor:
    """The sum of absolute values of each row, in a shape that divides `change`."""
    rows = tuple(range(1, change.dim()))
    return (change.abs().sum(rows, keepdim=True) if rows else change.abs().sum()) + SMALLEST


class FTP(torch.optim.AdamW):
    """Args:
    groups: what is trained, each with its weight decay.
    start: the w0 of each parameter.
    k: what a gradient that shrinks a radius is multiplied by.
    radius_lr: the learning rate of radii.
    adam: Adam's settings for the weights.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        start: Mapping[nn.Parameter, Tensor],
        k: float,
        radius_lr: float,
        **adam: Any,
    ):
        # The fused kernels would be run, to do nothing, when fp16's gradients overflow.
        super().__init__(groups, foreach=True, **adam)
        self.start, self.k, self.radius_lr = start, k, radius_lr

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of all that have a gradient."""
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        first = {p: self._reached(p) for p in moved if "radius" not in self.state[p]}
        asked = {p: self._radius_gradient(p) for p in moved if p not in first}
        super().step(closure)
        for p in moved:
            state, start = self.state[p], self.start[p]
            change = p - start
            norms = row_norms(change)
            if p in first:
                state["radius"] = first[p]
                state["radius_exp_avg"] = torch.zeros_like(state["radius"])
                state["radius_exp_avg_sq"] = torch.zeros_like(state["radius"])
            else:
                self._train_radius(state, asked[p], norms.max())
            p.copy_(start + (state["radius"] / norms).clamp(max=1.0) * change)
            state["direction"] = change / norms

    def _reached(self, p: nn.Parameter) -> Tensor:
        """The first radius: 1e-8 at the start, else what holds all that is there."""
        return row_norms(p - self.start[p]).max()

    def _radius_gradient(self, p: nn.Parameter) -> Tensor:
        """Of the loss, for the radius that the last step used."""
        gradient = (p.grad * self.state[p]["direction"]).sum()
        return torch.where(gradient > 0, self.k * gradient, gradient)

    def _train_radius(self, state: dict[str, Any], gradient: Tensor, largest: Tensor) -> None:
        first, second = state["radius_exp_avg"], state["radius_exp_avg_sq"]
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        # The count is that of the weights' steps, one more than the radius has had, as in the
        # authors' code. It stands on the CPU.
        steps = state["step"].item()
        corrected = first / (1 - BETAS[0] ** steps)
        spread = (second / (1 - BETAS[1] ** steps)).sqrt() + SMALLEST
        radius = state["radius"] - self.radius_lr * corrected / spread
        state["radius"] = radius.clamp(min=SMALLEST).minimum(largest)


def optimizer(
    attached: Attached,
    lr: float,
    *,
    k: Unit = 1.0,
    radius_lr: Annotated[float, Field(gt=0.0)] = 1e-2,
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0,
    betas: tuple[Momentum, Momentum] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0.0)] = 1e-8,
) -> FTP:
    """FTP over what a method trains, every tensor of it.

    Args:
        attached: what is trained.
        lr: the learning rate.
        k: what a gradient that shrinks a radius is multiplied by. 1 holds the weights nearest to
            their start, 0 never shrinks a radius.
        radius_lr: the learning rate of radii.
        weight_decay: how much of a weight is taken away in a step, times the learning rate. It
            spares biases, norms and scales.
        betas: the decay rates of Adam's two moments.
        eps: what Adam adds to the denominator of an update.
    """
    attached.keep_start(adapters=True)
    start = {attached.trained[name]: value for name, value in attached.start.items()}
    groups = decayed(attached, weight_decay)
    return FTP(groups, start, k, radius_lr, lr=lr, betas=betas, eps=eps)
