"""CLIP-Adapter (Gao et al., IJCV 2024): a bottleneck on features of pictures before the texts.

    f' = ratio · U relu(D f) + (1 - ratio) · f
    logits = κ f' / |f'| W^T

D [dim / reduction, dim] and U [dim, dim / reduction] have no biases. The released code has another
ReLU behind U (`last_relu`), the paper's formula none. Radapter's alpha multiplies `ratio`.
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

EXAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {"ratio": 0.6, "reduction": 2},
    {"last_relu": True},
)


class Adapter(nn.Module):
    """See above.

    Args:
        state: `weight` [classes, dim], `scale` κ, `down`, `up`, `ratio`, and `no_last_relu` if what
            U gives stays as it is.
    """

    weight: Tensor
    scale: Tensor
    ratio: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in ("weight", "scale", "ratio"):
            self.register_buffer(name, state[name].detach().clone())
        self.last_relu = "no_last_relu" not in state
        if not self.last_relu:
            self.register_buffer("no_last_relu", torch.ones(()))
        self.down = nn.Parameter(state["down"].detach().clone())
        self.up = nn.Parameter(state["up"].detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        adapted = F.linear(F.relu(F.linear(features, self.down)), self.up)
        adapted = F.relu(adapted) if self.last_relu else adapted
        mixed = F.normalize(self.ratio * adapted + (1 - self.ratio) * features, dim=-1)
        return self.scale * F.linear(mixed, self.weight)


def head(
    start: Start, *, ratio: Unit = 0.2, reduction: Count = 4, last_relu: bool = False
) -> Adapter:
    """The adapter with random weights, as torch's linear layers have them.

    Args:
        start: the zero-shot classifier.
        ratio: the share of adapted features.
        reduction: how many times narrower the bottleneck is than the features.
        last_relu: whether there is a ReLU behind U, as in the released code. `false`: as in the
            paper's formula, so that what is added may have either sign.
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
            **({} if last_relu else {"no_last_relu": torch.ones(())}),
        }
    )


def of(state: Mapping[str, Tensor]) -> Adapter:
    """The head with these tensors."""
    return Adapter(state)


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: the ratio. D and U are the trained ones throughout."""
    return {"ratio": torch.zeros(())}
