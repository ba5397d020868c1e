"""One optimizer step."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from radapter import distributed
from radapter.training.execution import attention
from radapter.training.failures import NotFinite
from radapter.training.gradients import gradients
from radapter.training.preparing import Parts

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
TEACHERS = (("zero-shot", 0.0), ("average", 1.0))
"""Names and scales of the averaged model that terms compare with: see `Attached.at`"""
LARGEST_LOGIT_SCALE = math.log(100.0)  # CLIP's own limit while the temperature is trained

SMALLEST_SCALE = 1e-3
"""Of fp16's gradients: it starts at 65,536 and halves at each overflow, a normal event."""


def training_mode(model: torch.nn.Module) -> None:
    """Training mode, but for BatchNorm: its statistics are no parameters, so they stay the base's,
    in training as in the merged model."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def optimizer_step(parts: Parts, batch: dict[str, Any]) -> float:
    """One optimizer step; the loss.

    The device is waited for once, for the loss and the norm of the gradients together (in fp16
    twice, and more where gradients overflow), and after the processes met on the CPU: one that is
    gone is noticed there, where a wait for a GPU would go on.

    Raises:
        NotFinite: the loss or the gradients are not; neither weights nor average have changed.
    """
    optimizer, recipe, model = parts.optimizer, parts.recipe, parts.base.model
    scaler = parts.scaler
    optimizer.zero_grad()
    precision = PRECISIONS[parts.precision]
    with attention(model, parts.device, precision):
        loss = gradients(
            model,
            batch,
            parts.terms,
            device=parts.device,
            precision=precision,
            micro_batch=recipe.optimisation.micro_batch,
            teachers={
                name: functools.partial(parts.attached.at, alpha, average=True)
                for name, alpha in TEACHERS
            },
            scaler=scaler,
            pixels=parts.pixels,
        )
    distributed.sum_gradients(parts.trained)
    if parts.attached.start_share == 1:  # the first step
        parts.attached.check_gradients()
    if scaler is not None:
        _check_loss(loss.item(), scaler)  # afterwards it is unknown whether there was a step
        scaler.unscale_(optimizer)
    limit = recipe.optimisation.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(parts.trained, math.inf if limit is None else limit)
    value, size = torch.stack([loss, norm]).tolist()
    _check_loss(value, scaler)
    if scaler is None:
        if not math.isfinite(size):
            raise NotFinite(f"The norm of the gradients became {size}")
        optimizer.step()
    else:
        scale = None if math.isfinite(size) else scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        # The gradients overflowed: there was no step.
        if scale is not None and scaler.get_scale() < scale:
            if scale < SMALLEST_SCALE:
                raise NotFinite(f"The gradients are not finite in fp16, even times {scale:g},")
            return value
    logit_scale: torch.Tensor = model.logit_scale  # type: ignore[assignment]
    if logit_scale.requires_grad:
        with torch.no_grad():
            logit_scale.clamp_(0.0, LARGEST_LOGIT_SCALE)
    parts.attached.update_average()
    for term in parts.terms:
        if term.queue:
            term.queue.advance()
    return value


def _check_loss(loss: float, scaler: torch.amp.GradScaler | None) -> None:
    if not math.isfinite(loss):
        why = " (fp16 ends at 65,504; precision: bf16 does not)" if scaler else ""
        raise NotFinite(f"The loss became {loss}{why}")


def scaler_tensors(scaler: torch.amp.GradScaler | None) -> dict[str, torch.Tensor]:
    """The scaler's state as tensors: its scale, and the steps since it last changed."""
    if scaler is None:
        return {}
    state = scaler.state_dict()
    return {
        "scale": torch.tensor(state["scale"], dtype=torch.float64),
        "growth_tracker": torch.tensor(state["_growth_tracker"]),
    }


def load_scaler(scaler: torch.amp.GradScaler | None, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `scaler_tensors` gave."""
    if scaler is None or not tensors:
        return
    facts = {
        "scale": tensors["scale"].item(),
        "_growth_tracker": int(tensors["growth_tracker"].item()),
    }
    scaler.load_state_dict({**scaler.state_dict(), **facts})
