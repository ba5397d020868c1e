"""How the towers are run: in which precision, compiled, with their activations computed again, with
which attention."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from radapter.errors import MissingDependency
from radapter.models.text import text_tower
from radapter.precision import cuda_has_bf16, on_cpu
from radapter.recipe import Recipe
from radapter.training.kept import keep_less

SHORT = 100
"""Patches of a picture up to which plain attention is taken on a CPU, in half precision"""


def precision_on(recipe: Recipe, device: torch.device) -> str:
    """What the towers compute in: the recipe's precision, but fp32 on a CPU that emulates bf16. A
    GPU that emulates it still saves memory by it."""
    if device.type == "cpu":
        return on_cpu(recipe.precision, "the towers compute")
    if recipe.precision == "bf16" and device.type == "cuda" and not cuda_has_bf16():
        warnings.warn(
            "This GPU has no bf16 and emulates it slowly. Next to try: precision=fp16.",
            stacklevel=2,
        )
    return recipe.precision


def set_up(model: nn.Module, recipe: Recipe, device: str = "cpu") -> None:
    """Set up `compile` and `activation_checkpointing`; neither changes the results.

    Raises:
        MissingDependency: no C++ compiler for torch.compile, or no triton for it on `cuda`.
    """
    keep_less(model)
    if recipe.activation_checkpointing:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    if not recipe.compile:
        return
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        raise MissingDependency(
            "compile: true needs a C++ compiler, and none was found. Install one (g++ or clang++), "
            "or leave `compile` out."
        )
    if device == "cuda" and not importlib.util.find_spec("triton"):
        raise MissingDependency(
            "compile: true needs triton on a GPU, and it is not installed. Type: pip install "
            "triton (on Windows triton-windows), or leave `compile` out."
        )
    tower = text_tower(model)
    texts = getattr(tower, "transformer", tower)
    for module in (model.visual, texts):
        # With torch's own random numbers, so that the same adapters are dropped.
        module.compile(options={"fallback_random": True})  # type: ignore[union-attr]


def attention(
    model: nn.Module, device: torch.device, precision: torch.dtype | None
) -> contextlib.AbstractContextManager[None]:
    """The attention to train with: torch's own choice, but on a CPU in half precision.

    There its fused attention takes longer for the backward pass than the rest of the step does, and
    short sequences are faster in plain products of matrices.
    """
    grid: Any = getattr(model.visual, "grid_size", None)  # open_clip's own ViTs have one
    short = grid is not None and grid[0] * grid[1] <= SHORT
    if device.type == "cpu" and precision is not None and short:
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()
