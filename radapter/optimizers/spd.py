"""SPD, Selective Projection Decay (Tian et al., NeurIPS 2024): Adam, with a pull back to the start.

Per tensor, with the start w0, the weights w before Adam's step and v after it, and the gradient g:

    rho = max(0, |v - w0| - |w - w0|) / |v - w0|
    if <g, w - w0> > 0:  v <- v - decay * rho * (v - w0)

Where the loss falls towards the start, the step does not lead further away from it. The start of
adapters is zero, where they have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from radapter.methods.attached import Attached
from radapter.optimizers.adamw import by_rate
from radapter.registry import Momentum

COPIES = 2
EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"decay": 0.3})


class SPD(torch.optim.AdamW):
    """Args:
    groups: what is trained.
    start: the w0 of each; one that is not in it starts at zero.
    decay: how much of what a step leads away from the start is taken back.
    adam: Adam's settings, without weight decay.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        start: Mapping[nn.Parameter, Tensor],
        decay: float,
        **adam: Any,
    ):
        # The fused kernels would be run, to do nothing, when fp16's gradients overflow.
        super().__init__(groups, weight_decay=0.0, foreach=True, **adam)
        self.start, self.decay = start, decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of all that have a gradient."""
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [(self._change(p), p.grad) for p in moved]
        conditions = [(gradient * change).sum() > 0 for change, gradient in before]
        distances = [change.norm() for change, _ in before]
        super().step(closure)
        for p, back, distance in zip(moved, conditions, distances, strict=True):
            change = self._change(p)
            now = change.norm()
            rho = ((now - distance) / now).clamp(0.0, 1.0)
            p.sub_(torch.where(back, self.decay * rho, 0.0) * change)

    def _change(self, p: nn.Parameter) -> Tensor:
        return p - self.start[p] if p in self.start else p


def optimizer(
    attached: Attached,
    lr: float,
    *,
    decay: Annotated[float, Field(ge=0.0)] = 1.0,
    betas: tuple[Momentum, Momentum] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0.0)] = 1e-8,
) -> SPD:
    """SPD over what a method trains, every tensor of it.

    Args:
        attached: what is trained.
        lr: the learning rate.
        decay: how much of what a step leads away from the start is taken back: the paper's lambda.
            0 is Adam, 1 keeps the distance from the start; more leads nearer to it.
        betas: the decay rates of Adam's two moments.
        eps: what Adam adds to the denominator of an update.
    """
    attached.keep_start()
    start = {attached.trained[name]: value for name, value in attached.start.items()}
    return SPD(by_rate(attached), start, decay, lr=lr, betas=betas, eps=eps)
