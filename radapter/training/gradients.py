"""Gradients of a batch's loss, however the batch is divided: into chunks, over devices.

The loss compares every picture with every text, so it is no mean over parts of the batch. But it
depends on the towers through their features alone, so (GradCache, Gao et al. 2021, section 3)

    features of all parts  ->  loss and its gradient for each feature  ->  backward part by part

gives the gradients of the whole batch. A part that is encoded twice, first without a graph, draws
the same adapter dropping both times, as it would in an unchunked batch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter import distributed
from radapter.methods.batch_rows import of_frames, rows
from radapter.models import encode_text, image_size, shorten
from radapter.models.frames import video_features
from radapter.objectives.terms import Batch, Features, Term, count_of, labelled_part, rows_of
from radapter.training.feeding import ON_DEVICE, moved

Teacher = Callable[[], AbstractContextManager[nn.Module]]
Encode = Callable[[nn.Module, Tensor, torch.dtype | None], Tensor]


@dataclass(frozen=True)
class BatchPart:
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


class BatchFeatures:
    """Features of a batch, those of all processes and chunks; backward goes back through them."""

    def __init__(self, model: nn.Module, inputs: BatchPart, precision: torch.dtype | None):
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
        if self.features.grad is None:  # no term asks for them
            return
        first = self.inputs.first
        gradient = self.features.grad[first : first + len(self.inputs.own)]
        for start, part in self.inputs.chunks():
            features = self._encode(start, part) if self.graph is None else self.graph
            if not features.requires_grad:  # nothing of this tower is trained
                return
            # What is computed again in here has the same rows.
            frames = part.shape[1] if part.dim() == 5 else 1
            with rows(first + start, self.inputs.total), of_frames(frames):
                features.backward(gradient[start : start + len(part)])


def gradients(
    model: nn.Module,
    batch: Batch,
    terms: Sequence[Term],
    *,
    device: torch.device,
    teachers: Mapping[str, Teacher] = MappingProxyType({}),
    precision: torch.dtype | None = None,
    micro_batch: int | None = None,
    scaler: torch.amp.GradScaler | None = None,
    pixels: Callable[[Tensor], Tensor] = lambda pictures: pictures,
) -> Tensor:
    """Add this process's part of the gradients of a batch's loss to `.grad`; the loss, a scalar on
    the device, which nothing here waits for.

    The parts of all processes add up to the gradients of the whole batch. The loss is the same in
    every process; what it reaches without a tower (the temperature, a head, what a penalty is of)
    gets its gradient in the first process alone.

    Args:
        model: the model as it is trained.
        batch: what `radapter.data.pairs.collate` makes; `distributed.exchange` it first.
        terms: the addends of the loss.
        device: where the model is.
        teachers: contexts that give the models that terms compare with.
        precision: what the towers compute in, instead of the weights' own.
        micro_batch: rows that are encoded at a time.
        scaler: what the gradients are multiplied by.
        pixels: from the batch's pictures to what the image tower takes.
    """
    drawn = [term.texts() if term.texts else batch["tokens"][:0] for term in terms]
    own = batch["tokens"] if any(t.loss and t.reads_texts for t in terms) else batch["tokens"][:0]
    ends = list(itertools.accumulate(map(len, drawn), initial=len(own)))
    tokens = moved(shorten(model, torch.cat([own, *drawn])), device)
    batch = {**batch, **{name: moved(batch[name], device) for name in ON_DEVICE}}
    labelled = labelled_part(batch)
    images = batch["images"]
    if not any(term.reads_images for term in terms):
        images = torch.empty(0, 1, device=device)  # like features, which stay as they are
    elif not len(images):  # this process has none of the batch's pictures
        images = images.new_empty(0, 3, *image_size(model))

    def encode(model: nn.Module, part: Tensor, precision: torch.dtype | None) -> Tensor:
        return encode_pictures(model, pixels(part), precision)

    def encoded(model: nn.Module, tokens: Tensor) -> tuple[BatchFeatures, BatchFeatures]:
        first, total = batch.get("first", 0), len(batch["groups"])
        share = distributed.share(len(tokens))  # each process encodes so many distinct ones
        texts = BatchPart(encode_tokens, tokens[share], share.start, len(tokens), micro_batch)
        pictures = BatchPart(encode, images, first, total, micro_batch)
        return BatchFeatures(model, pictures, precision), BatchFeatures(model, texts, precision)

    # Teachers first: to be one, a model may change tensors that the graph of a step keeps.
    theirs: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name in dict.fromkeys(term.teacher for term in terms if term.teacher):
        reads = any(term.reads_texts for term in terms if term.teacher == name)
        start = 0 if reads else ends[0]
        with torch.no_grad(), teachers[name]() as teacher:
            found = [part.features.detach() for part in encoded(teacher, tokens[start:])]
            padded = F.pad(found[1], (0, 0, start, 0))
            theirs[name] = found[0], padded, teacher.logit_scale.exp()  # type: ignore[operator]
    pictures, texts = encoded(model, tokens)
    scale = model.logit_scale.exp()  # type: ignore[operator]
    addends: list[Tensor] = []
    for term, (first, last) in zip(terms, itertools.pairwise(ends), strict=True):
        alone = term.rows == "labelled"
        rows_seen = rows_of(batch, term.rows)
        own_texts = min(ends[0], batch.get("labelled_texts", ends[0])) if alone else ends[0]

        def features(images: Tensor, texts: Tensor, scale: Tensor) -> Features:
            own, drawn = texts[:own_texts], texts[first:last]  # noqa: B023
            return Features(images[rows_seen], own, drawn, scale)  # noqa: B023

        if term.loss and count_of(batch, term.rows):
            then = features(*theirs[term.teacher]) if term.teacher else None
            now = features(pictures.features, texts.features, scale)
            addends.append(term.weight * term.loss(now, then, labelled if alone else batch))
        if term.penalty:
            addends.append(term.weight * term.penalty())
    loss = functools.reduce(torch.add, addends)
    # Every process could have the whole gradient of what the loss reaches directly: one has it.
    leaves = None if distributed.is_main_process() else [pictures.features, texts.features]
    (scaler.scale(loss) if scaler else loss).backward(inputs=leaves)
    for part in (pictures, texts):
        part.backward()
    return loss.detach()


def encode_pictures(model: nn.Module, pictures: Tensor, precision: torch.dtype | None) -> Tensor:
    """Features [batch, dim], unit norm, fp32, of pictures [batch, 3, height, width], or of clips
    [batch, frames, 3, height, width].

    The towers compute in `precision`, if there is one; the normalisation does not. What are
    features already stays as it is.
    """
    if pictures.dim() == 2:
        return pictures
    with _autocast(pictures.device, precision):
        if pictures.dim() == 5:
            with of_frames(pictures.shape[1]):
                return video_features(model, pictures)
        features = model.encode_image(pictures)  # type: ignore[operator]
    return F.normalize(features.float(), dim=-1)


def encode_tokens(model: nn.Module, tokens: Tensor, precision: torch.dtype | None) -> Tensor:
    """Features [texts, dim], unit norm, fp32, of token ids [texts, length]."""
    with _autocast(tokens.device, precision):
        features = encode_text(model, tokens)
    return F.normalize(features.float(), dim=-1)


def _autocast(device: torch.device, precision: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, precision, enabled=precision is not None)


def _random_state(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _restore(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for cuda in state[1:]:
        torch.cuda.set_rng_state(cuda, device)
