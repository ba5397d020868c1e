"""The towers keep less for the backward pass, with the same results.

- QuickGELU, x * sigmoid(1.702 x), keeps x alone and computes the sigmoid again: one tensor of the
  MLP's width instead of two.
- LayerNorm in half precision keeps its input as it came and not the copy in fp32 that it computes
  with, which autocast on CUDA makes: half the bytes.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from open_clip.transformer import LayerNorm, LayerNormFp32, QuickGELU
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def keep_less(model: nn.Module) -> None:
    """Let open_clip's QuickGELU and LayerNorm modules do as above; other kinds stay as they are."""
    for module in model.modules():
        if type(module) is QuickGELU:
            module.forward = MethodType(lambda self, x: _QuickGELU.apply(x), module)
        elif type(module) in (LayerNorm, LayerNormFp32):
            module.forward = MethodType(_layer_norm, module)


class _QuickGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(1.702 * x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(1.702 * x)
        # As autograd does it, operation by operation: the same bits.
        through = 1.702 * torch.ops.aten.sigmoid_backward(gradient * x, gate)
        return gradient * gate + through


def _layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    if x.dtype == self.weight.dtype:
        return type(self).forward(self, x)
    return _LayerNorm.apply(x, self.weight, self.bias, self.normalized_shape, self.eps)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Any, eps: float
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x.float(), shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.shape = shape
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        found = torch.ops.aten.native_layer_norm_backward(
            gradient.float(), x.float(), ctx.shape, mean, rstd, weight, bias, wanted
        )
        of_x, *rest = (part if want else None for part, want in zip(found, wanted, strict=True))
        return None if of_x is None else of_x.to(x.dtype), *rest, None, None
