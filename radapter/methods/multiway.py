"""Multiway-Adapter (Long et al., ICASSP 2024): a new-knowledge extractor beside the MLP of every
block, one for each tower, and an alignment enhancer that both towers share.

    extractor    x + MLP(LN x) + s * (U drop(relu(D x + b)) + c),   U [width, r] and c zero at first
    enhancer     y + G(y),    y behind a block, or features before they are normalised

The enhancer G is a bottleneck like the extractor, with s = 1: the size that the paper claims. In
the released code it is a whole MLP, large and not zero at the start: `enhancer: mlp`. Where the
towers have other widths, as those of CLIP, no module of a block fits both: there is one enhancer
in the joint space: that place is ours. Blocks that only one tower has are without. Nothing of it
folds into a weight: there is no `merge`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.methods.batch_rows import bernoulli_of_rows
from radapter.methods.blocks import residual_blocks, tower_of
from radapter.methods.branches import (
    Branch,
    behind_block,
    beside_mlp,
    feature_width,
    holding,
    like,
    linear,
)
from radapter.models import joint
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rank": 4, "scale": 1.0, "drop": 0.0},
    {"rank": 4, "scale": 1.0, "drop": 0.3, "average": Average(momentum=0.9)},
    {"rank": 4, "scale": 1.0, "towers": "image", "place": "layers"},
    {"rank": 4, "scale": 1.0, "enhancer": "none"},
    {"rank": 4, "extractor": False},
    {"rank": 4, "scale": 1.0, "enhancer": "mlp"},
    {"rank": 4, "scale": 1.0, "enhancer": "mlp", "towers": "text"},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({"enhancer": "mlp"},)
"""Settings with which training does not start at the zero-shot model"""


class Bottleneck(Branch):
    """U drop(relu(D x + b)) + c."""

    def __init__(self, down: nn.Linear, up: nn.Linear, scale: float, drop: float) -> None:
        super().__init__(scale, up.weight.detach())
        self.down, self.up, self.drop = down, up, drop

    def change(self, x: Tensor) -> Tensor:
        h = torch.relu(self.down(x))
        if self.training and self.drop:
            kept = 1.0 - self.drop
            h = h * bernoulli_of_rows(h, kept, elements=True) / kept
        return self.up(h)


class WholeMLP(Branch):
    """V LN(gelu(W x + b)) + c, W [4 width, width]."""

    def __init__(self, first: nn.Linear, norm: nn.LayerNorm, last: nn.Linear) -> None:
        super().__init__(1.0, last.weight.detach())
        self.first, self.norm, self.last = first, norm, last

    def change(self, x: Tensor) -> Tensor:
        return self.last(self.norm(F.gelu(self.first(x))))


def attach(
    model: nn.Module,
    *,
    rank: Count = 64,
    towers: Towers = "both",
    scale: float = 0.1,
    drop: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1,
    extractor: bool = True,
    enhancer: Literal["bottleneck", "mlp", "none"] = "bottleneck",
    place: Literal["auto", "layers", "joint"] = "auto",
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and add extractors and enhancers to it.

    Args:
        model: an open_clip model.
        rank: the width r of every bottleneck.
        towers: which towers are trained: "both", "image" or "text".
        scale: the factor s of what an extractor adds; it is not trained.
        drop: the probability that an element inside a bottleneck is zero in a training step.
        extractor: whether there are extractors.
        enhancer: `bottleneck`: two linear layers with ReLU between, of `rank`. `mlp`: as in the
            released code an MLP of four times the width; training does not start at the zero-shot
            model. `none`: there is none.
        place: where enhancers are. `layers`: behind every block; the first blocks of both towers
            share one, the second ones too, and so on, as far as both have any: their widths have to
            agree. `joint`: one behind both towers, on their features. `auto`: `layers` where that
            fits.
        average: moving average of the adapters' weights, what is kept after training; off by
            default.

    Raises:
        UsageError: a tower without such blocks; no place for an enhancer; nothing is left to train.
    """
    if not extractor and enhancer == "none":
        raise UsageError(
            "multiway trains nothing with extractor: false and enhancer: none: leave out one of "
            "them."
        )
    model.requires_grad_(False)
    trained = ("image", "text") if towers == "both" else (towers,)
    blocks = residual_blocks(model, towers, "multiway")
    of_tower = [[b for b in blocks if tower_of(model, b.name) == tower] for tower in trained]
    layers = list(zip(*of_tower, strict=False))  # those that both have
    widths = [[like(block).shape[1] for block in layer] for layer in layers]
    fits = all(len(set(layer)) == 1 for layer in widths)
    if place == "layers" and not fits:
        image, text = widths[0]
        raise UsageError(
            "multiway shares an enhancer in every layer only if the blocks of both towers have the "
            f"same width, and here it is {image} in the image tower and {text} in the text tower: "
            "use method.place=joint."
        )
    parts: dict[str, nn.Module] = {}
    branches: list[Branch] = []

    def add(name: str, modules: dict[str, Any]) -> dict[str, Any]:
        parts.update({f"{name}.{kind}": module for kind, module in modules.items()})
        return modules

    def enhancers(name: str, weight: Tensor, count: int) -> list[Branch]:
        """Branches that share their weights; each has its own scale."""
        if enhancer == "mlp":
            whole = add(name, _mlp(weight))
            return [WholeMLP(**whole) for _ in range(count)]
        shared = add(name, _bottleneck(weight, rank))
        return [Bottleneck(**shared, scale=1.0, drop=drop) for _ in range(count)]

    for block in blocks if extractor else ():
        modules = add(f"{block.name}.extractor", _bottleneck(like(block), rank))
        branches.append(Bottleneck(**modules, scale=scale, drop=drop))
        beside_mlp(block, branches[-1], "multiway", reads="stream")
    if enhancer != "none" and (place == "joint" or not fits):
        weight = like(blocks[0]).new_empty(1, feature_width(model))
        branches += enhancers("enhancer", weight, 1)
        joint.put_behind(model, branches[-1], trained)
    elif enhancer != "none":
        for number, layer in enumerate(layers):
            added = enhancers(f"enhancer.{number}", like(layer[0]), len(layer))
            branches += added
            for block, branch in zip(layer, added, strict=True):
                behind_block(block, branch)
    for branch in branches:
        branch.train(model.training)
    return Attached(model, parts, holding(parts, branches), average, towers=trained)


def _bottleneck(weight: Tensor, rank: int) -> dict[str, nn.Module]:
    """Of the width, type and device of a weight [..., width]."""
    width = weight.shape[1]
    down, up = linear(width, rank, weight), linear(rank, width, weight)
    nn.init.zeros_(up.weight)
    return {"down": down, "up": up}


def _mlp(weight: Tensor) -> dict[str, nn.Module]:
    """The released code's, of the width, type and device of a weight [..., width]."""
    width = weight.shape[1]
    first, last = linear(width, 4 * width, weight), linear(4 * width, width, weight)
    for layer in (first, last):
        start = nn.init.trunc_normal_(torch.empty(layer.weight.shape), std=0.02)
        layer.weight.data.copy_(start)
    norm = nn.LayerNorm(4 * width, device=weight.device, dtype=weight.dtype)
    return {"first": first, "norm": norm, "last": last}
