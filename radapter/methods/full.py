"""Full fine-tuning; merged at alpha it is weight interpolation (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import BrokenInput
from radapter.methods.attached import Attached, Values
from radapter.methods.blocks import tower_of
from radapter.registry import Average, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {"train_temperature": True, "average": Average(momentum=0.9)},
    {"towers": "image"},
)


def attach(
    model: nn.Module,
    *,
    towers: Towers = "both",
    train_temperature: bool = False,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Train the parameters of one or both towers; CoCa's decoder is in neither.

    Args:
        model: an open_clip model.
        towers: which towers are trained: "both", "image" or "text".
        train_temperature: whether `logit_scale` is trained too; a SigLIP's `logit_bias` never is,
            as no objective reads it.
        average: moving average of the weights, what is kept after training; off by default.
    """
    model.requires_grad_(False)
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            chosen = train_temperature
        else:
            tower = tower_of(model, name)
            chosen = tower is not None and towers in ("both", tower)
        if chosen:
            parameter.requires_grad_(True)
            trained[name] = parameter
    present: dict[str, Tensor] = {}

    def hold(kept: Values | None, alpha: float) -> None:
        for name, parameter in trained.items():
            # Replace the tensor, do not write into it: an earlier graph still needs its values.
            if kept is None:
                parameter.data = present.pop(name, parameter.data)
            else:
                present[name], start = parameter.data, attached.start[name]
                parameter.data = torch.lerp(start, kept[name], alpha) if kept else start

    attached = Attached(model, trained, hold, average)
    return attached


def merge(
    base: Mapping[str, Tensor], stored: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 - alpha) base + alpha tuned; exactly the base at 0 and exactly the tuned model at 1."""
    merged = {name: tensor.clone() for name, tensor in base.items()}
    if alpha == 0:
        return merged
    for name, tuned in stored.items():
        if name not in base or base[name].shape != tuned.shape:
            raise BrokenInput(f"The tuned weights belong to another model: it has no {name}.")
        merged[name] = torch.lerp(base[name], tuned.to(base[name].dtype), alpha)
    return merged
