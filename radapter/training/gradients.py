"""Gradients of a batch's loss, however the batch is divided: into chunks, over devices.

The loss compares every picture with every text, so it is no mean over parts of the batch. But it
depends on the towers through their features alone, so (GradCache, Gao et al. 2021, section 3)

    features of all parts  ->  loss and its gradient for each feature  ->  backward part by part

gives the gradients of the whole batch. A part that is encoded twice, first without a graph, draws
the same adapter dropping both times, and what the batch in one piece would draw for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from radapter import distributed
from radapter.methods.rows import rows
from radapter.models import shorten
from radapter.recipe import Objective
from radapter.training import objective
from radapter.training.feeding import ON_DEVICE, moved

Encode = Callable[[nn.Module, Tensor, torch.dtype | None], Tensor]


@dataclass(frozen=True)
class Inputs:
    """What this process encodes of a batch's pictures, or of its texts."""

    encode: Encode
    own: Tensor
    """[rows, ...] on the model's device"""
    first: int
    """Where the own rows stand among those of the whole batch"""
    total: int
    micro_batch: int | None

    def chunks(self) -> list[tuple[int, Tensor]]:
        """The own rows in parts, each with the number of its first one; at least one part."""
        size = self.micro_batch or max(1, len(self.own))
        return [(i, self.own[i : i + size]) for i in range(0, max(1, len(self.own)), size)]


class Encoded:
    """Features of a batch, those of all processes and chunks; backward goes back through them."""

    def __init__(self, model: nn.Module, inputs: Inputs, precision: torch.dtype | None):
        self.model, self.inputs, self.precision = model, inputs, precision
        self.state = _random_state(inputs.own.device)
        chunks = inputs.chunks()
        keep_graph = torch.is_grad_enabled() and len(chunks) == 1
        with torch.set_grad_enabled(keep_graph):
            found = [self._encode(*chunk) for chunk in chunks]
        self.graph = found[0] if keep_graph else None
        own = torch.cat([features.detach() for features in found])
        self.features = distributed.gather(own, inputs.first, inputs.total).requires_grad_()

    def _encode(self, start: int, part: Tensor) -> Tensor:
        _restore(self.state, part.device)
        if not len(part):  # one blank row, so that draws go on as in the other processes
            blank = part.new_zeros(1, *part.shape[1:])
            with rows(0, self.inputs.total):
                return self.inputs.encode(self.model, blank, self.precision)[:0]
        with rows(self.inputs.first + start, self.inputs.total):
            return self.inputs.encode(self.model, part, self.precision)

    def backward(self) -> None:
        """From the gradients of the features to those of what is trained."""
        assert self.features.grad is not None
        first = self.inputs.first
        gradient = self.features.grad[first : first + len(self.inputs.own)]
        for start, part in self.inputs.chunks():
            features = self._encode(start, part) if self.graph is None else self.graph
            if not features.requires_grad:  # nothing of this tower is trained
                return
            # What is computed again in here has the same rows.
            with rows(first + start, self.inputs.total):
                features.backward(gradient[start : start + len(part)])


def gradients(
    model: nn.Module,
    batch: dict[str, Any],
    settings: Objective,
    *,
    device: torch.device,
    precision: torch.dtype | None = None,
    micro_batch: int | None = None,
    retained: objective.Retention | None = None,
    scaler: torch.amp.GradScaler | None = None,
    pixels: Callable[[Tensor], Tensor] = lambda pictures: pictures,
) -> Tensor:
    """Add this process's part of the gradients of a batch's loss to `.grad`; the loss, a scalar on
    the device, which nothing here waits for.

    The parts of all processes add up to the gradients of the whole batch. The loss is the same in
    every process.

    Args:
        model: the model as it is trained.
        batch: what `radapter.data.pairs.Collate` makes; `distributed.exchange` it first.
        settings: the recipe's objective.
        device: where the model is.
        precision: what the towers compute in, instead of the weights' own.
        micro_batch: rows that are encoded at a time.
        retained: what similarities are held to, if the objective asks for it.
        scaler: what the gradients are multiplied by.
        pixels: from the batch's pictures to what the image tower takes.
    """
    pool = retained.draw() if retained else batch["tokens"][:0]
    tokens = moved(shorten(model, torch.cat([batch["tokens"], pool])), device)
    batch = {**batch, **{name: moved(batch[name], device) for name in ON_DEVICE}}
    images = batch["images"]
    if not len(images):  # this process has none of the batch's pictures
        images = images.new_empty(0, 3, *_size(model))

    def encode(model: nn.Module, part: Tensor, precision: torch.dtype | None) -> Tensor:
        return objective.encode_pictures(model, pixels(part), precision)

    def pictures() -> Inputs:
        first, total = batch.get("first", 0), len(batch["groups"])
        return Inputs(encode, images, first, total, micro_batch)

    def texts(tokens: Tensor) -> Inputs:  # each process encodes its share of the distinct ones
        share = distributed.share(len(tokens))
        own = tokens[share]
        return Inputs(objective.encode_tokens, own, share.start, len(tokens), micro_batch)

    found = [Encoded(model, part, precision) for part in (pictures(), texts(tokens))]
    before: list[Tensor] | None = None
    if retained is not None:
        with torch.no_grad(), retained.zero_shot() as then:
            compared = (pictures(), texts(tokens[-len(pool) :]))
            before = [Encoded(then, part, precision).features.detach() for part in compared]
    loss = objective.loss_of_features(
        found[0].features,
        found[1].features,
        batch,
        settings,
        logit_scale=model.logit_scale.exp(),  # type: ignore[operator]
        before=before,
    )
    (scaler.scale(loss) if scaler else loss).backward()
    if distributed.rank():  # every process has the whole gradient of the temperature
        model.logit_scale.grad = None
    for part in found:
        part.backward()
    return loss.detach()


def _size(model: nn.Module) -> tuple[int, int]:
    size = model.visual.image_size  # type: ignore[union-attr]
    return (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[arg-type]


def _random_state(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _restore(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for cuda in state[1:]:
        torch.cuda.set_rng_state(cuda, device)
