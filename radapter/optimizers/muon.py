"""Muon (Jordan et al. 2024): momentum made orthogonal, for the matrices of transformers' layers.

Such a matrix moves along the nearest orthogonal matrix of its momentum, scaled to the size of a
step of AdamW (Liu et al. 2025). Everything else is AdamW's: tables of tokens and positions, first
and last projections, vectors and scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from radapter import precision
from radapter.errors import MissingDependency
from radapter.methods.attached import Attached
from radapter.optimizers.adamw import decayed
from radapter.registry import Momentum

COPIES = 2
EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"weight_decay": 0.1})
LAYERS = {"resblocks", "layers", "layer", "blocks"}
"""How lists of layers are called: in open_clip's towers, Hugging Face's and timm's"""


class Muon(torch.optim.Optimizer):
    """torch's Muon for some parameters and its AdamW for the others, as one optimizer.

    Args:
        matrices: groups for Muon.
        others: groups for AdamW.
        lr: the learning rate of both.
        adam: further settings of AdamW.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        lr: float,
        **adam: Any,
    ):
        super().__init__([p for group in [*matrices, *others] for p in group["params"]], {})
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            of_matrices = _of_matrices(matrices)
            self._parts.append(of_matrices(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, fused=True, **adam))
        self.param_groups = [group for part in self._parts for group in part.param_groups]
        self._share()

    def _share(self) -> None:
        """The parts work on the state and the groups of the whole, which checkpoints read."""
        first = 0
        for part in self._parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of all that have a gradient."""
        for part in self._parts:
            part.step()


def _of_matrices(groups: list[dict[str, Any]]) -> Callable[..., torch.optim.Optimizer]:
    """torch's Muon, which makes momentum orthogonal in bf16, or where that is emulated ours."""
    emulated = groups[0]["params"][0].device.type == "cpu" and not precision.cpu_has_bf16()
    return _in_fp32() if emulated else torch.optim.Muon


def _in_fp32() -> type[torch.optim.Optimizer]:
    class InFp32(torch.optim.Muon):
        """torch's Muon with Nesterov's momentum and `match_rms_adamw`, and the same state, but
        orthogonal in fp32."""

        @torch.no_grad()
        def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
                for matrix in group["params"]:
                    if matrix.grad is None:
                        continue
                    state = self.state[matrix]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                    state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                    way = matrix.grad.lerp(state["momentum_buffer"], momentum)
                    way = orthogonal(way, group["ns_coefficients"], group["ns_steps"], group["eps"])
                    matrix.mul_(1 - lr * decay)
                    matrix.add_(way, alpha=-lr * 0.2 * math.sqrt(max(matrix.shape)))

    return InFp32


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Roughly the nearest orthogonal matrix [rows, columns], by the Newton-Schulz iteration of
    Jordan et al. 2024, in the precision of `matrix`: singular values come near 1."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found


def optimizer(
    attached: Attached,
    lr: float,
    *,
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0,
    betas: tuple[Momentum, Momentum] = (0.9, 0.999),
    eps: Annotated[float, Field(gt=0.0)] = 1e-8,
) -> Muon:
    """Muon over matrices of transformers' layers, AdamW over the rest of what a method trains.

    Args:
        attached: what is trained.
        lr: the learning rate; one that fits AdamW fits.
        weight_decay: how much of a weight is taken away in a step, times the learning rate. It
            spares biases, norms and scales.
        betas: the decay rates of AdamW's two moments.
        eps: what AdamW adds to the denominator of an update.

    Raises:
        MissingDependency: torch is older than its Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise MissingDependency(
            "The optimizer muon needs torch 2.9 or newer, and this one is older."
        )
    inside = {
        parameter
        for name, parameter in attached.trained.items()
        if parameter.dim() == 2 and LAYERS & {*name.split(".")}
    }
    groups = decayed(attached, weight_decay)
    matrices = [{**g, "params": [p for p in g["params"] if p in inside]} for g in groups]
    others = [{**g, "params": [p for p in g["params"] if p not in inside]} for g in groups]
    matrices, others = ([g for g in part if g["params"]] for part in (matrices, others))
    return Muon(matrices, others, lr, betas=betas, eps=eps)
