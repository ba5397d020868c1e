"""What mixes the zero-shot and the tuned model per sample: the part that DaWin and VRF share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.heads.linear import Linear

HOTTEST, COLDEST = 1e-2, 1e2
STEPS = 60
"""Halvings of the range of a temperature"""


@dataclass(frozen=True)
class Answers:
    """What two models say of the same pictures: the zero-shot one and the tuned one."""

    features: tuple[Tensor, Tensor]
    """[n, dim] each, unit norm"""
    logits: tuple[Tensor, Tensor]
    """[n, classes] each"""
    labels: Tensor
    """[n]"""


class Gate(nn.Module):
    """Features of several models side by side [n, k * dim] -> logits [n, classes].

    Args:
        heads: a classifier of each model: the zero-shot one, the tuned one, then further ones.
        temperatures: of the first two [2], which their logits are divided by.
    """

    temperatures: Tensor

    def __init__(self, heads: Sequence[nn.Module], temperatures: Tensor) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.register_buffer("temperatures", temperatures)

    def among(self, rows: Sequence[int]) -> Gate:
        """The gate of some classes alone: they are all that the models answer among."""
        state = self.state_dict()
        for name, value in state.items():
            if name.endswith((".weight", ".bias")):
                state[name] = value[list(rows)]
        return self.remade(state)

    def remade(self, state: Mapping[str, Tensor]) -> Gate:
        """A gate of this kind with other tensors."""
        raise NotImplementedError

    def unit(self, features: Tensor, member: int) -> Tensor:
        """One model's features [n, dim], unit norm."""
        width = features.shape[1] // len(self.heads)
        return F.normalize(features[:, member * width : (member + 1) * width], dim=1)

    def log_probabilities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of the zero-shot and the tuned model [n, classes], at their temperatures."""
        first, second = (
            (head(self.unit(features, member)) / self.temperatures[member]).log_softmax(dim=1)
            for member, head in enumerate(list(self.heads)[:2])
        )
        return first, second


def mixed(zero_shot: Tensor, tuned: Tensor, weight: Tensor) -> Tensor:
    """log((1 - w) p_0 + w p_1) of log-probabilities [n, classes] and weights [n]."""
    first = zero_shot + torch.log1p(-weight)[:, None]
    second = tuned + weight.log()[:, None]
    return torch.maximum(first, second) + torch.log1p(torch.exp(-(first - second).abs()))


def some_rows(head: Any, rows: Sequence[int]) -> Linear:
    """A linear head of some of its classes."""
    bias = None if head.bias is None else head.bias[list(rows)]
    return Linear(head.weight[list(rows)], head.scale, bias)


def heads_of(state: Mapping[str, Tensor]) -> list[Linear]:
    """The classifiers in a gate's tensors."""
    number = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("heads."))
    return [
        Linear(state[f"heads.{i}.weight"], state[f"heads.{i}.scale"], state.get(f"heads.{i}.bias"))
        for i in range(number)
    ]


def temperature(logits: Tensor, labels: Tensor, by: Literal["likelihood", "confidence"]) -> float:
    """The T that logits [n, classes] are divided by to be calibrated on labels [n].

    Args:
        by: `likelihood`: the labels are likeliest (Guo et al., ICML 2017). `confidence`: the mean
            largest probability is the accuracy, as in VRF's released code.

    Returns:
        Between `HOTTEST` and `COLDEST`. Both rise with 1 / T throughout, so that T is found by
        halving.
    """
    logits = logits.double()
    target = logits.gather(1, labels[:, None])[:, 0]
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())

    def too_cold(inverse: float) -> bool:
        shares = (inverse * logits).softmax(dim=1)
        if by == "confidence":
            return float(shares.amax(dim=1).mean()) > accuracy
        return float(((shares * logits).sum(dim=1) - target).mean()) > 0

    low, high = 1 / COLDEST, 1 / HOTTEST
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if too_cold(middle) else (middle, high)
    return 1 / (low * high) ** 0.5
