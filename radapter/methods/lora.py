"""LoRA (Hu et al., ICLR 2022) on every linear layer of the residual attention blocks.

    W = W_org + scale * U D,    U [out, r] zero at first, D [r, in] random

for the attention's query, key and value (each with factors of its own), its output projection and
all layers of the MLP. The weight itself is parametrized, since `nn.MultiheadAttention` reads its
weights without calling its linear layer. The peft package (0.21) wraps that class, with one factor
for query, key and value together, and refuses open_clip's own attention class, which this takes
too; and it would bring transformers and accelerate as required packages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import register_parametrization

from radapter.errors import BrokenInput
from radapter.methods.attached import Attached, Values
from radapter.methods.blocks import residual_blocks
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rank": 2},
    {"rank": 2, "scale": 0.3, "average": Average(momentum=0.9)},
    {"towers": "image"},
)


class LowRank(nn.Module):
    """A change to a weight [parts * out, in]: up [parts, out, r] times down [parts, r, in]."""

    def __init__(self, weight: Tensor, parts: int, rank: int, scale: float):
        super().__init__()
        rows, columns = weight.shape
        self.up = nn.Parameter(weight.new_zeros(parts, rows // parts, rank))
        # Drawn on the CPU, so that the start is the same on any device.
        down = torch.empty(parts, rank, columns, dtype=weight.dtype, device="cpu")
        for part in down:
            nn.init.kaiming_uniform_(part, a=math.sqrt(5))
        self.down = nn.Parameter(down.to(weight.device))
        self.scale = scale
        self.off = False
        self.fixed: Tensor | None = None
        """A change to use instead of the trained one"""

    def forward(self, weight: Tensor) -> Tensor:
        if self.fixed is not None:
            return weight + self.fixed
        if self.off:
            return weight
        return weight + self.scale * (self.up @ self.down).flatten(0, 1)


def attach(
    model: nn.Module,
    *,
    rank: Count = 8,
    towers: Towers = "both",
    scale: float = 1.0,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and add low-rank changes to the weights of its blocks.

    Args:
        model: an open_clip model.
        rank: the rank r of every change.
        towers: which towers are trained: "both", "image" or "text".
        scale: what the product is multiplied by (LoRA's alpha / r).
        average: moving average of the factors U and D, each by itself, what is kept after training;
            off by default.

    Raises:
        UsageError: a tower without such blocks.
    """
    model.requires_grad_(False)
    changes: dict[str, LowRank] = {}
    for block in residual_blocks(model, towers, "lora"):
        for place, parts in block.weights().items():
            owner, _, own = place.rpartition(".")
            module = block.module.get_submodule(owner)
            change = LowRank(getattr(module, own), parts, rank, scale)
            register_parametrization(module, own, change)
            if isinstance(module, nn.MultiheadAttention):
                module.forward = MethodType(_formed_once, module)  # type: ignore[method-assign]
            changes[f"{block.name}.{place}"] = change

    def with_scale(factors: Values) -> Values:
        """The factors, with the scale in `up`."""
        return {n: f * scale if n.endswith(".up") else f for n, f in factors.items()}

    def hold(kept: Values | None, alpha: float) -> None:
        for name, change in changes.items():
            change.off = kept == {}
            product = (kept[f"{name}.up"] @ kept[f"{name}.down"]).flatten(0, 1) if kept else None
            change.fixed = None if product is None else alpha * product

    def norm() -> Tensor:
        """The sum of ||scale U D||^2 = scale^2 tr(U^T U D D^T), in products [r, r]."""
        grams = [(c.up.mT @ c.up) * (c.down @ c.down.mT) for c in changes.values()]
        return scale**2 * torch.stack([gram.sum() for gram in grams]).sum()

    return Attached(model, changes, hold, average, kept=with_scale, change=norm)


def _formed_once(self: nn.MultiheadAttention, *inputs: Any, **options: Any) -> Any:
    """Its forward pass, which reads the weights three times."""
    if torch.compiler.is_compiling():  # the compiler sees that they are the same
        return type(self).forward(self, *inputs, **options)
    with parametrize.cached():
        return type(self).forward(self, *inputs, **options)


def merge(
    base: Mapping[str, Tensor], stored: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """W_org + alpha * U D, formed in float64; alpha = 0 gives the base bit for bit."""
    merged = {name: tensor.clone() for name, tensor in base.items()}
    if alpha == 0:
        return merged
    for key, up in stored.items():
        name, _, factor = key.rpartition(".")
        if factor != "up":
            continue
        down = stored.get(f"{name}.down")
        if name not in base or down is None:
            raise BrokenInput(f"The adapter belongs to another model, or is damaged: {name}.")
        change = (up.double() @ down.double()).flatten(0, 1)
        if change.shape != base[name].shape:
            raise BrokenInput(f"The adapter belongs to another model: {name} has another shape.")
        merged[name] = (base[name].double() + alpha * change).to(base[name].dtype)
    return merged
