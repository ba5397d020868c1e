"""TPGM (Tian et al., CVPR 2023) at merge time: how far each tensor goes, learned on held-out data.

Each tensor has a radius r, and is taken from the base w0 as far as that towards the tuned weights:

    w = w0 + min(1, r / (|d| + 1e-8)) d,    d = tuned - w0

|d| is, by `norm`, the sum of absolute values of each row (`mars`, as FTP has it), or the Euclidean
norm of the whole tensor (`l2`). Radii start at half of the tensor's smallest |d|. Adam trains them
by the gradient of a loss on held-out data, and they stay within 1e-8 and the largest |d|.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from radapter.merging.deltas import State

Norm = Literal["mars", "l2"]
SMALLEST = 1e-8
STEPS, LR = 200, 1e-2
"""Those of the authors' code"""


def project(
    base: State,
    tuned: State,
    gradient: Callable[[State], State],
    *,
    norm: Norm = "mars",
    steps: int = STEPS,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[State, dict[str, Any]]:
    """The weights that changed, and the facts: the rule's settings, and how much of a tensor's
    change is `kept`, the smallest, mean and largest over tensors.

    Args:
        base: the weights before training.
        tuned: the weights that training changed.
        gradient: of the loss on the next batch of held-out data, for such weights.
        norm: what a radius is compared with.
        steps: of Adam.
        on_step: called with steps done and steps in all.
    """
    changes = {name: value - base[name] for name, value in tuned.items()}
    norms = {name: norm_of(change, norm) for name, change in changes.items()}
    radii = {name: nn.Parameter(own.min() / 2) for name, own in norms.items()}
    adam = torch.optim.Adam(radii.values(), lr=LR)
    for step in range(steps):
        shares = _shares(radii, norms)
        found = gradient(_projected(base, changes, shares))
        for name, radius in radii.items():
            # A row that is taken whole does not depend on its radius.
            inside = (shares[name] < 1) / (norms[name] + SMALLEST)
            radius.grad = (found[name] * changes[name] * inside).sum()
        adam.step()
        on_step(step + 1, steps)
    shares = _shares(radii, norms)
    kept = [float(share.mean()) for share in shares.values()]
    facts = {"norm": norm, "steps": steps, "lr": LR} | (
        {"kept": {"smallest": min(kept), "mean": statistics.fmean(kept), "largest": max(kept)}}
        if kept
        else {}
    )
    return _projected(base, changes, shares), facts


def norm_of(change: Tensor, norm: Norm) -> Tensor:
    """|d|, in a shape that divides `change`; a bias is one row."""
    if norm == "l2":
        return change.norm()
    rows = tuple(range(1, change.dim()))
    return change.abs().sum(rows, keepdim=True) if rows else change.abs().sum()


@torch.no_grad()
def _shares(radii: dict[str, nn.Parameter], norms: dict[str, Tensor]) -> dict[str, Tensor]:
    """How much of each row is kept; the radii are put within their bounds first."""
    for name, radius in radii.items():
        radius.clamp_(min=SMALLEST).copy_(radius.minimum(norms[name].max().clamp(min=SMALLEST)))
    return {
        name: (radii[name].detach() / (own + SMALLEST)).clamp(max=1.0)
        for name, own in norms.items()
    }


def _projected(base: State, changes: State, shares: State) -> dict[str, Tensor]:
    return {name: base[name] + shares[name] * change for name, change in changes.items()}
