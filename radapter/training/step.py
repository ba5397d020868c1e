"""One optimizer step."""

from __future__ import annotations

import math
from typing import Any

import torch

from radapter.training import objective
from radapter.training.failures import NotFinite
from radapter.training.preparing import Parts

LARGEST_LOGIT_SCALE = math.log(100.0)  # CLIP's own limit while the temperature is trained


def training_mode(model: torch.nn.Module) -> None:
    """Training mode, but for BatchNorm: its statistics are no parameters, so they stay the base's,
    in training as in the merged model."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def optimizer_step(parts: Parts, batch: dict[str, Any]) -> float:
    """One optimizer step; the loss.

    Raises:
        NotFinite: the loss or the gradients are not; neither weights nor average have changed.
    """
    optimizer, recipe, model = parts.optimizer, parts.recipe, parts.base.model
    loss = objective.loss(
        model,
        batch,
        recipe.objective,
        device=parts.device,
        low_precision=recipe.precision == "bf16",
        retained=parts.retained,
    )
    if not math.isfinite(loss.item()):
        raise NotFinite(f"The loss became {loss.item()}")
    optimizer.zero_grad()
    loss.backward()
    limit = recipe.optimisation.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(parts.trained, math.inf if limit is None else limit)
    if not math.isfinite(norm.item()):
        raise NotFinite(f"The norm of the gradients became {norm.item()}")
    optimizer.step()
    logit_scale: torch.Tensor = model.logit_scale  # type: ignore[assignment]
    if logit_scale.requires_grad:
        with torch.no_grad():
            logit_scale.clamp_(0.0, LARGEST_LOGIT_SCALE)
    parts.attached.update_average()
    return loss.item()
