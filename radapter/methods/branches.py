"""Nonlinear branches that a method adds to the residual stream of a tower.

Such a branch folds into no weight, so the model is used with it, and alpha scales what it adds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Hold, Values
from radapter.methods.blocks import Block
from radapter.methods.full import interpolating
from radapter.models import image_size

NORMS = ("ln_2", "norm2", "layer.1.layer_norm")
"""The norm before the MLP in blocks that have one: open_clip, timm, transformers' mT5"""


class Branch(nn.Module):
    """x [..., width] -> scale * change(x), [..., width]."""

    scale: Tensor

    def __init__(self, scale: float, like: Tensor) -> None:
        super().__init__()
        self.own = scale
        """What it is trained with"""
        # A buffer, so that the hash of the weights tells one scale from another.
        self.register_buffer("scale", like.new_full([1], scale))
        self.stream: Stream | None = None
        """Where it reads, if not at the MLP"""
        self.behind = False
        """Whether it reads the MLP's output in the place of its input"""

    def change(self, x: Tensor) -> Tensor:
        """What is added, before it is scaled."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.change(x)


class Stream:
    """The residual stream after attention, on its way from the norm that reads it to a branch."""

    value: Tensor | None = None


def linear(width: int, out: int, like: Tensor, bias: bool = True) -> nn.Linear:
    """A layer drawn on the CPU, so that the start is the same on any device; no bias at first."""
    layer = nn.Linear(width, out, bias=bias, device="cpu")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer.to(like.device, like.dtype)


def like(block: Block) -> Tensor:
    """A weight [..., width] of a block: of the block's width, type and device."""
    return block.module.get_parameter(block.mlp[0][0])


def feature_width(model: nn.Module) -> int:
    """The dimensions of features."""
    weight = next(model.visual.parameters())  # type: ignore[union-attr]
    with torch.no_grad():
        picture = weight.new_zeros(1, 3, *image_size(model))
        return int(model.encode_image(picture).shape[-1])  # type: ignore[operator]


def beside_mlp(block: Block, branch: Branch, method: str, *, reads: str) -> None:
    """Add a branch to the output of a block's MLP. It is put into the MLP's last layer, since a
    sequence would run what is put into itself.

    Args:
        reads: `input`, what the MLP reads; `output`, what it gives; `stream`, the residual stream
            after attention: the same as `input`, but before the norm, if the block has one there.
        method: named in the message.

    Raises:
        UsageError: the MLP is not one module.
    """
    (first, *_), last = block.mlp
    mlp, _, layer = last.rpartition(".")
    if not mlp or not first.startswith(f"{mlp}."):
        raise UsageError(
            f"{method} needs an MLP that is one module, which {block.name} does not "
            "have: use method.name=lora or method.name=full."
        )
    inside = dict(block.module.named_modules())
    inside[last].adapter, branch.behind = branch, reads == "output"
    inside[mlp].register_forward_hook(functools.partial(_add_beside, layer))
    norm = next((inside[name] for name in NORMS if name in inside), None)
    # In timm's blocks that say so the norm stands behind the MLP, which reads the stream itself.
    if reads == "stream" and norm is not None and "Post" not in type(block.module).__name__:
        norm.stream = branch.stream = Stream()
        norm.register_forward_hook(_keep)


# Hooks take everything from the modules that they are given: a copy of a model has its own.


def _keep(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    norm.stream.value = inputs[0]  # type: ignore[union-attr]


def _add_beside(layer: str, mlp: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    branch: Branch = mlp.get_submodule(layer).adapter  # type: ignore[assignment]
    x = output if branch.behind else inputs[0]
    if branch.stream is not None:
        assert branch.stream.value is not None
        x, branch.stream.value = branch.stream.value, None
    added: Tensor = branch(x)
    return output + added


def behind_block(block: Block, branch: Branch) -> None:
    """Add a branch of a block's output to that output."""
    block.module.enhancer = branch
    block.module.register_forward_hook(_add_behind)


def _add_behind(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> object:
    branch: Branch = module.enhancer  # type: ignore[assignment]
    if isinstance(output, tuple):
        return output[0] + branch(output[0]), *output[1:]
    assert isinstance(output, Tensor)
    return output + branch(output)


def named_parameters(parts: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters of modules, under the names of these."""
    return {n: p for name, part in parts.items() for n, p in part.named_parameters(name)}


def holding(parts: Mapping[str, nn.Module], branches: Sequence[Branch]) -> Hold:
    """The `hold` of an `Attached` of such branches: kept weights, each branch scaled by alpha."""
    trained = named_parameters(parts)
    own: dict[str, Tensor] = {}

    def hold(kept: Values | None, alpha: float) -> None:
        if kept and not own:
            own.update({name: parameter.detach().clone() for name, parameter in trained.items()})
        with torch.no_grad():
            for name, value in (own if kept is None else kept).items():
                trained[name].copy_(value)
            for branch in branches:
                factor = 1.0 if kept is None else alpha if kept else 0.0
                # A new tensor: a backward pass to come may hold the present one.
                branch.scale = torch.full_like(branch.scale, factor * branch.own)
        if kept is None:
            own.clear()

    return hold


def holding_both(
    parts: Mapping[str, nn.Module],
    branches: Sequence[Branch],
    own: Mapping[str, nn.Parameter],
    start: Callable[[], Values],
) -> Hold:
    """The same where weights of the model's own, which began at `start`, are trained beside
    branches: alpha interpolates them."""
    hold_branches, hold_own = holding(parts, branches), interpolating(own, start)
    names = named_parameters(parts)

    def hold(kept: Values | None, alpha: float) -> None:
        hold_branches(None if kept is None else {n: kept[n] for n in names if n in kept}, alpha)
        hold_own(kept, alpha)

    return hold
