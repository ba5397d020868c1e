"""A linear classifier on features of pictures, started from the texts of the classes.

    logits = κ f W^T (+ b),    W = text features of the class prompts, b = 0 at the start

so training starts at the zero-shot answers (Wortsman et al., CVPR 2022, section 2; Kumar et al.,
ICLR 2022, for linear probing before fine-tuning).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.heads.head import Start

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"bias": True, "scale_in_weight": True})


class Linear(nn.Module):
    """logits [n, classes] = scale * features [n, dim] weight^T + bias."""

    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        logits = self.scale * F.linear(features, self.weight)
        return logits if self.bias is None else logits + self.bias


def head(start: Start, *, bias: bool = False, scale_in_weight: bool = False) -> Linear:
    """The zero-shot classifier with its weights as parameters.

    Args:
        start: the zero-shot classifier.
        bias: whether each class has a trained bias. WiSE-FT's released code has one.
        scale_in_weight: whether the logit scale κ is multiplied into W before training, as in
            WiSE-FT's released code. Steps of AdamW have one size whatever the weights' size, so W
            then changes κ times more slowly (κ is 100 in CLIP).
    """
    weight, scale = start.weights, torch.tensor(float(start.logit_scale))
    if scale_in_weight:
        weight, scale = scale * weight, torch.ones(())
    return Linear(weight, scale, torch.zeros(len(weight)) if bias else None)


def of(state: Mapping[str, Tensor]) -> Linear:
    """The head with these tensors."""
    return Linear(state["weight"], state["scale"], state.get("bias"))


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: all, as it starts."""
    return dict(state)
