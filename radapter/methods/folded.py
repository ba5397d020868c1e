"""A frozen linear layer and the adapter that follows it, with less work than one after the other.

With z = h W_org^T + b_org (h [tokens, in], W_org [d, in]) and the adapter's matrix C = gamma s W,
one for all tokens of the step, the output is

    z (I + C)^T  =  h W_eff^T + b_eff,    W_eff = (I + C) W_org,  b_eff = (I + C) b_org.

Multiply-adds beside the frozen layer, with N tokens (the adapter as a module: 3 N d^2):

- `through_weight`: the forward pass uses W_eff, and h is saved instead of z. N d^2 + 2 d^2 in: for
  a square layer it wins once tokens outnumber d. After attention h is saved anyhow.
- `after`: z is saved instead of the wider h. The gradient for h is formed through W_eff when that
  is less work, N > in: 2 N d^2 + d^2 in.

Both are exact: the same sums in another order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def with_identity(change: Tensor) -> Tensor:
    """I + C, [d, d]."""
    return change + torch.eye(len(change), dtype=change.dtype, device=change.device)


def through_weight(h: Tensor, linear: nn.Linear, change: Tensor) -> Tensor:
    """The adapted output [..., d] of `h` [..., in], by the folded weight."""
    if h.numel() // h.shape[-1] <= len(change):
        return F.linear(F.linear(h, linear.weight, linear.bias), with_identity(change))
    fold = with_identity(change)
    bias = None if linear.bias is None else fold @ linear.bias
    return F.linear(h, fold @ linear.weight, bias)


def after(h: Tensor, z: Tensor, linear: nn.Linear, change: Tensor) -> Tensor:
    """The adapted output [..., d] of `z` = `linear(h)` [..., d]."""
    # Detached: the gradient reaches h from here, not through z.
    return _After.apply(h, z.detach(), linear.weight, with_identity(change))


def low_rank(h: Tensor, linear: nn.Linear, down: Tensor, up: Tensor) -> Tensor:
    """The adapted output [..., d] of `h` [..., in] with C = up [d, r] down [r, d].

    D z = (D W_org) h + D b_org: h, saved anyhow, instead of z.
    """
    bias = None if linear.bias is None else down @ linear.bias
    low = F.linear(h, down @ linear.weight, bias)
    return F.linear(h, linear.weight, linear.bias) + F.linear(low, up)


def dropped(z: Tensor, *parameters: Tensor) -> Tensor:
    """z, with zeros as the parameters' gradients: an optimizer passes over those without any."""
    return _Dropped.apply(z, *parameters) if torch.is_grad_enabled() else z


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return z.view_as(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


class _After(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, z: Tensor, weight: Tensor, fold: Tensor) -> Tensor:
        ctx.save_for_backward(z, weight, fold)
        return F.linear(z, fold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, fold = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_h = of_fold = None
        if ctx.needs_input_grad[0]:
            if len(rows) > weight.shape[1]:
                of_h = rows @ (fold @ weight)
            else:
                of_h = (rows @ fold) @ weight
            of_h = of_h.unflatten(0, gradient.shape[:-1])
        if ctx.needs_input_grad[3]:
            of_fold = rows.T @ z.reshape(-1, z.shape[-1])
        return of_h, None, None, of_fold


def attend(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """What the output projection of self-attention reads, [batch, tokens, d], of x of that shape.

    `nn.MultiheadAttention` puts tokens first and back again; without that nothing is copied, and
    what the attention saves for its backward pass is what the projection saves.
    """
    rows = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    heads = rows.unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query, key, value = heads.transpose(1, 3).unbind(2)  # [batch, heads, tokens, head width] each
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


def can_attend(
    attention: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: dict[str, Any],
) -> bool:
    """Whether `attend` is what this call computes."""
    mask = options.get("attn_mask")
    return (
        query is key
        and key is value
        and options.keys() <= {"need_weights", "attn_mask"}
        and not options.get("need_weights", True)
        and (mask is None or (mask.is_floating_point() and mask.dim() == 2))
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and not attention.dropout
    )
