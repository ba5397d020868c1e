"""A model in half precision."""

from __future__ import annotations

import torch
from open_clip.transformer import LayerNormFp32
from torch import nn


def to_half(model: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    """A model in fp16 or bf16, in place, with LayerNorm in fp32 as open_clip's own half has it.

    Callers pass and receive fp32, and normalize in fp32: in fp16 norms are off by 3e-4 and the
    guard against a division by zero underflows. Softmax stays in fp16: casts around it change
    no worst cosine on onnxruntime's CPU provider, which computes it in fp32 anyway
    (`benchmarks/precision.py`); on a GPU it was not measured.
    """
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
            module.__class__ = LayerNormFp32  # the same parameters, with casts around them
    return model


def image_dtype(model: nn.Module) -> torch.dtype:
    """What the image tower takes."""
    return next(model.visual.parameters()).dtype  # type: ignore[union-attr]
