"""AdamW (Loshchilov and Hutter 2019): Adam, with a weight decay beside the gradient."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from radapter.methods.attached import Attached
from radapter.registry import Momentum

COPIES = 2
EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"weight_decay": 0.1})


def optimizer(
    attached: Attached,
    lr: float,
    *,
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0,
    betas: tuple[Momentum, Momentum] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0.0)] = 1e-8,
) -> torch.optim.AdamW:
    """AdamW over what a method trains.

    Args:
        attached: what is trained.
        lr: the learning rate.
        weight_decay: how much of a weight is taken away in a step, times the learning rate. It
            spares biases, norms and scales.
        betas: the decay rates of Adam's two moments.
        eps: what Adam adds to the denominator of an update.
    """
    groups = decayed(attached, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def decayed(attached: Attached, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of parameters; weight decay spares biases, norms and scales, as everywhere in the
    field."""
    groups: list[dict[str, Any]] = []
    for group in by_rate(attached):
        matrices = [p for p in group["params"] if p.dim() >= 2]
        others = [p for p in group["params"] if p.dim() < 2]
        groups += [
            {**group, "params": matrices, "weight_decay": weight_decay},
            {**group, "params": others, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]] or groups


def by_rate(attached: Attached) -> list[dict[str, Any]]:
    """Groups of parameters, each with its `rate`, by which the learning rate is multiplied in every
    step; one at least."""
    groups: dict[float, list[nn.Parameter]] = {} if attached.trained else {1.0: []}
    for name, parameter in attached.trained.items():
        groups.setdefault(attached.rates.get(name, 1.0), []).append(parameter)
    return [{"params": own, "rate": rate} for rate, own in groups.items()]
