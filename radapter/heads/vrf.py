"""VRF (Zhu et al., NeurIPS 2024): near to what zero-shot gets wrong, the tuned model counts more.

    p = (1 - w) p_0 + w p_1,    w = sigmoid(-(d - a) / b)

d is the distance of a sample's tuned features to the k-th nearest of the failures: held-out
pictures that the tuned model names right and the zero-shot model wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.heads.gate import Answers, Gate, heads_of, mixed, temperature

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"distance": "euclidean"})
A, B = 1.5, 0.6
"""Published"""
SHARE = 1000 / 1_281_167
"""k as a share of the failures: the released code's on ImageNet"""
Distance = Literal["squared", "euclidean"]


@dataclass(frozen=True)
class Fit:
    """What is fitted on pictures of the training distribution."""

    temperatures: Tensor
    """[2]"""
    failures: Tensor
    """[m, dim], unit norm"""
    nearest: int
    """k"""
    distance: Distance

    def gate(self, heads: Sequence[nn.Module]) -> Vrf:
        """With classifiers of the zero-shot model and the tuned one."""
        euclidean = torch.tensor(self.distance == "euclidean")
        curve = torch.tensor([A, B])
        return Vrf(
            heads, self.temperatures, self.failures, torch.tensor(self.nearest), euclidean, curve
        )


class Vrf(Gate):
    """See `Fit`; `curve` is a and b."""

    failures: Tensor
    nearest: Tensor
    euclidean: Tensor
    curve: Tensor

    def __init__(
        self,
        heads: Sequence[nn.Module],
        temperatures: Tensor,
        failures: Tensor,
        nearest: Tensor,
        euclidean: Tensor,
        curve: Tensor,
    ) -> None:
        super().__init__(heads, temperatures)
        self.register_buffer("failures", failures)
        self.register_buffer("nearest", nearest)
        self.register_buffer("euclidean", euclidean)
        self.register_buffer("curve", curve)
        self._nearest, self._euclidean = int(nearest), bool(euclidean)

    def remade(self, state: Mapping[str, Tensor]) -> Vrf:
        return of(state)

    def forward(self, features: Tensor) -> Tensor:
        zero_shot, tuned = self.log_probabilities(features)
        squared = (2 - 2 * self.unit(features, 1) @ self.failures.T).clamp(min=0)
        distance = squared.topk(self._nearest, dim=1, largest=False).values[:, -1]
        if self._euclidean:
            distance = distance.sqrt()
        a, b = self.curve
        return mixed(zero_shot, tuned, torch.sigmoid(-(distance - a) / b))


def of(state: Mapping[str, Tensor]) -> Vrf:
    """The gate with these tensors."""
    own = ("temperatures", "failures", "nearest", "euclidean", "curve")
    return Vrf(heads_of(state), **{key: state[key] for key in own})


def fit(answers: Answers, *, distance: Distance = "squared") -> Fit:
    """Temperatures at which mean confidence is accuracy, and the failures.

    Args:
        answers: on held-out pictures.
        distance: `squared` as in the released code, which a and b are of; `euclidean` as the paper
            writes it.

    Raises:
        UsageError: there are no failures.
    """
    labels = answers.labels
    temperatures = torch.tensor([temperature(x, labels, "confidence") for x in answers.logits])
    wrong, right = (x.argmax(dim=1) == labels for x in answers.logits)
    failed = right & ~wrong
    if not failed.any():
        raise UsageError(
            f"None of the {len(labels):,} held-out pictures is one that the zero-shot model gets "
            "wrong and the tuned one right, so VRF has no distance to measure: hold out more "
            "pictures, or take --rule dawin."
        )
    failures = answers.features[1][failed]
    return Fit(temperatures, failures, max(1, round(SHARE * len(failures))), distance)


def settings(found: Fit) -> dict[str, Any]:
    """What was fitted, in plain data."""
    return {
        "temperatures": [round(float(t), 4) for t in found.temperatures],
        "failures": len(found.failures),
        "nearest": found.nearest,
        "distance": found.distance,
        "a": A,
        "b": B,
    }
