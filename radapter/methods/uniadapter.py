"""UniAdapter (Lu et al., ICLR 2024): nonlinear adapters beside the MLP of every block, the down
projection of a layer being one for both towers.

    x + MLP(LN x) + s * (U relu(D h + b) + c),    U [width, r] and c zero at first

D [r, width] is the same matrix in the image and in the text tower. Where these have other widths, a
matrix E [r, width] of its own tower stands before D [r, r]: that form is ours. h is a LayerNorm of
the adapter's own of x, shared like D, as published; or the block's LN x, which is frozen. Its
branches of cross-modal layers, which CLIP has none of, are left out. A ReLU folds into no weight:
there is no `merge`, and the model is used with its adapters.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from radapter.methods.attached import Attached
from radapter.methods.blocks import residual_blocks, tower_of
from radapter.methods.branches import Branch, beside_mlp, holding, like, linear
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rank": 4, "scale": 1.0},
    {"rank": 2, "scale": 2.0, "average": Average(momentum=0.9)},
    {"towers": "image", "scale": 1.0},
    {"rank": 4, "scale": 1.0, "norm": "own"},
    {"rank": 4, "scale": 1.0, "norm": "own", "init": "upstream"},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({"init": "upstream"},)
"""Settings with which training does not start at the zero-shot model"""


class Adapter(Branch):
    """h [..., width] -> what is added to the MLP's output, [..., width]."""

    def __init__(
        self, norm: nn.Module, enter: nn.Module, down: nn.Module, up: nn.Linear, scale: float
    ) -> None:
        super().__init__(scale, up.weight.detach())
        self.norm, self.enter, self.down, self.up = norm, enter, down, up

    def change(self, x: Tensor) -> Tensor:
        return self.up(torch.relu(self.down(self.enter(self.norm(x)))))


def attach(
    model: nn.Module,
    *,
    rank: Count = 128,
    towers: Towers = "both",
    scale: float = 0.1,
    norm: Literal["block", "own"] = "block",
    init: Literal["zero", "upstream"] = "zero",
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and add adapters to its blocks.

    Args:
        model: an open_clip model.
        rank: the width r of every adapter.
        towers: which towers are trained: "both", "image" or "text".
        scale: the factor s of what an adapter adds; it is not trained.
        norm: what an adapter reads. `own`: the residual stream through a trained LayerNorm, which
            both towers share where their widths agree, as published. `block`: what the MLP reads,
            behind the block's frozen norm.
        init: `zero`: training starts at the zero-shot model. `upstream`: as in the released code,
            up projections of the image tower start at random, trunc-normal of 0.02, and those of
            the text tower at zero.
        average: moving average of the adapters' weights, what is kept after training; off by
            default.

    Raises:
        UsageError: a tower without such blocks.
    """
    model.requires_grad_(False)
    chosen = residual_blocks(model, towers, "uniadapter")
    image = [block for block in chosen if tower_of(model, block.name) == "image"]
    text = [block for block in chosen if tower_of(model, block.name) == "text"]
    parts: dict[str, nn.Module] = {}
    adapters: list[Branch] = []
    for number in range(max(len(image), len(text))):
        layer = [blocks[number] for blocks in (image, text) if number < len(blocks)]
        weights = [like(block) for block in layer]
        widths = {weight.shape[1] for weight in weights}
        alike, first = len(widths) == 1, weights[0]
        parts[f"down.{number}"] = linear(first.shape[1] if alike else rank, rank, first)
        if alike and norm == "own":
            parts[f"norm.{number}"] = _layer_norm(first)
        for block, weight in zip(layer, weights, strict=True):
            up = parts[f"{block.name}.up"] = linear(rank, weight.shape[1], weight)
            nn.init.zeros_(up.weight)
            if init == "upstream" and block in image:
                up.weight.data.copy_(nn.init.trunc_normal_(torch.empty(up.weight.shape), std=0.02))
            if not alike:
                parts[f"{block.name}.enter"] = linear(weight.shape[1], rank, weight, bias=False)
                if norm == "own":
                    parts[f"{block.name}.norm"] = _layer_norm(weight)

            def part(kind: str, own: str = block.name, shared: int = number) -> nn.Module:
                found = parts.get(f"{own}.{kind}", parts.get(f"{kind}.{shared}"))
                return nn.Identity() if found is None else found

            adapter = Adapter(part("norm"), part("enter"), part("down"), up, scale)
            beside_mlp(block, adapter, "uniadapter", reads="stream" if norm == "own" else "input")
            adapters.append(adapter)
    return Attached(model, parts, holding(parts, adapters), average)


def _layer_norm(weight: Tensor) -> nn.LayerNorm:
    return nn.LayerNorm(weight.shape[1], device=weight.device, dtype=weight.dtype)
