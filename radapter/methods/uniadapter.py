"""UniAdapter (Lu et al., ICLR 2024): nonlinear adapters beside the MLP of every block, the down
projection of a layer being one for both towers.

    x + MLP(h) + s * (U relu(D h + b) + c),    h = LN x,  U [width, r] and c zero at first

D [r, width] is the same matrix in the image and in the text tower. Where these have other widths, a
matrix E [r, width] of its own tower stands before D [r, r]. The paper gives the adapter a LayerNorm
of its own; here it has the block's, which is frozen. Its branches of cross-modal layers, which CLIP
has none of, are left out. A ReLU folds into no weight: there is no `merge`, and the model is used
with its adapters.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Attached, Values
from radapter.methods.blocks import Block, residual_blocks
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rank": 4, "scale": 1.0},
    {"rank": 2, "scale": 2.0, "average": Average(momentum=0.9)},
    {"towers": "image", "scale": 1.0},
)


class Adapter(nn.Module):
    """h [..., width] -> what is added to the MLP's output, [..., width]."""

    def __init__(self, enter: nn.Module, down: nn.Module, up: nn.Linear, scale: float):
        super().__init__()
        self.enter, self.down, self.up = enter, down, up
        self.own = scale
        """s as it is trained with"""
        # A buffer, so that the hash of the weights tells one scale from another.
        self.register_buffer("scale", torch.full_like(up.bias.detach(), scale)[:1])

    scale: Tensor

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * self.up(torch.relu(self.down(self.enter(h))))


def attach(
    model: nn.Module,
    *,
    rank: Count = 128,
    towers: Towers = "both",
    scale: float = 0.1,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and add adapters to its blocks.

    Args:
        model: an open_clip model.
        rank: the width r of every adapter.
        towers: which towers are trained: "both", "image" or "text".
        scale: the factor s of what an adapter adds; it is not trained.
        average: moving average of the adapters' weights, what is kept after training; off by
            default.

    Raises:
        UsageError: a tower without such blocks.
    """
    model.requires_grad_(False)
    chosen = residual_blocks(model, towers, "uniadapter")
    image = [block for block in chosen if block.name.startswith("visual.")]
    text = [block for block in chosen if not block.name.startswith("visual.")]
    parts: dict[str, nn.Module] = {}
    adapters: list[Adapter] = []
    for number in range(max(len(image), len(text))):
        layer = [blocks[number] for blocks in (image, text) if number < len(blocks)]
        weights = [block.module.get_parameter(block.mlp[0][0]) for block in layer]
        widths = [weight.shape[1] for weight in weights]
        alike, like = len(set(widths)) == 1, weights[0]
        down = parts[f"down.{number}"] = _linear(widths[0] if alike else rank, rank, like)
        for block, width in zip(layer, widths, strict=True):
            enter = nn.Identity() if alike else _linear(width, rank, like, bias=False)
            up = parts[f"{block.name}.up"] = _linear(rank, width, like)
            nn.init.zeros_(up.weight)
            if not alike:
                parts[f"{block.name}.enter"] = enter
            adapters.append(_place(block, Adapter(enter, down, up, scale)))
    trained = {n: p for name, part in parts.items() for n, p in part.named_parameters(name)}
    own: dict[str, Tensor] = {}

    def hold(kept: Values | None, alpha: float) -> None:
        if kept and not own:
            own.update({name: parameter.detach().clone() for name, parameter in trained.items()})
        with torch.no_grad():
            for name, value in (own if kept is None else kept).items():
                trained[name].copy_(value)
            for adapter in adapters:
                factor = 1.0 if kept is None else alpha if kept else 0.0
                # A new tensor: a backward pass to come may hold the present one.
                adapter.scale = torch.full_like(adapter.scale, factor * adapter.own)
        if kept is None:
            own.clear()

    return Attached(model, parts, hold, average)


def _place(block: Block, adapter: Adapter) -> Adapter:
    """Put an adapter beside a block's MLP: as a part of its last layer, since a sequence would run
    what is put into itself."""
    (first, *_), last = block.mlp
    mlp, _, layer = last.rpartition(".")
    if not mlp or not first.startswith(f"{mlp}."):
        raise UsageError(
            f"uniadapter needs an MLP that is one module, which {block.name} does not "
            "have: use method.name=lora or method.name=full."
        )
    block.module.get_submodule(last).adapter = adapter
    block.module.get_submodule(mlp).register_forward_hook(functools.partial(_add, layer))
    return adapter


def _add(layer: str, mlp: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A hook on an MLP. It takes the adapter from the module that it is given, so that a copy of
    the model runs its own."""
    added: Tensor = mlp.get_submodule(layer).adapter(inputs[0])  # type: ignore[operator]
    return output + added


def _linear(width: int, out: int, like: Tensor, bias: bool = True) -> nn.Linear:
    """A layer drawn on the CPU, so that the start is the same on any device; no bias at first."""
    layer = nn.Linear(width, out, bias=bias, device="cpu")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer.to(like.device, like.dtype)
