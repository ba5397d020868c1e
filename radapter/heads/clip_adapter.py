"""CLIP-Adapter (Gao et al., IJCV 2024): a bottleneck on features of pictures before the texts.

    f' = ratio · relu(U relu(D f)) + (1 - ratio) · f
    logits = κ f' / |f'| W^T

D [dim / reduction, dim] and U [dim, dim / reduction] have no biases; the second ReLU is the
released code's. Radapter's alpha multiplies `ratio`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.heads.head import Start
from radapter.registry import Count, Unit

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"ratio": 0.6, "reduction": 2})


class Adapter(nn.Module):
    """See above.

    Args:
        state: `weight` [classes, dim], `scale` κ, `down`, `up` and `ratio`.
    """

    weight: Tensor
    scale: Tensor
    ratio: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in ("weight", "scale", "ratio"):
            self.register_buffer(name, state[name].detach().clone())
        self.down = nn.Parameter(state["down"].detach().clone())
        self.up = nn.Parameter(state["up"].detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        adapted = F.relu(F.linear(F.relu(F.linear(features, self.down)), self.up))
        mixed = F.normalize(self.ratio * adapted + (1 - self.ratio) * features, dim=-1)
        return self.scale * F.linear(mixed, self.weight)


def head(start: Start, *, ratio: Unit = 0.2, reduction: Count = 4) -> Adapter:
    """The adapter with random weights, as torch's linear layers have them.

    Args:
        start: the zero-shot classifier.
        ratio: the share of adapted features.
        reduction: how many times narrower the bottleneck is than the features.
    """
    dim = start.weights.shape[1]
    width = max(1, dim // reduction)
    return Adapter(
        {
            "weight": start.weights,
            "scale": torch.tensor(float(start.logit_scale)),
            "down": nn.init.kaiming_uniform_(torch.empty(width, dim), a=math.sqrt(5)),
            "up": nn.init.kaiming_uniform_(torch.empty(dim, width), a=math.sqrt(5)),
            "ratio": torch.tensor(float(ratio)),
        }
    )


def of(state: Mapping[str, Tensor]) -> Adapter:
    """The head with these tensors."""
    return Adapter(state)


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: the ratio. D and U are the trained ones throughout."""
    return {"ratio": torch.zeros(())}
