"""Gradients of a batch's loss, however the batch is divided: into chunks, over devices.

The loss compares every picture with every text, so it is no mean over parts of the batch. But it
depends on the towers through their features alone, so (GradCache, Gao et al. 2021, section 3)

    features of all parts  ->  loss and its gradient for each feature  ->  backward part by part

gives the gradients of the whole batch. A part that is encoded twice, first without a graph, draws
the same adapter dropping both times, as it would in an unchunked batch.

A term may ask for pairs of a picture and a text that the decoder reads together. These are parts of
their own: what the decoder reads of pictures and texts is for them what features are for the loss.
"""

from __future__ import annotations

import dataclasses
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
from radapter.models import image_size, matching, shorten
from radapter.objectives.terms import Batch, Features, Term, count_of, labelled_part, rows_of
from radapter.training import encoding
from radapter.training.encoding import BatchFeatures, BatchPart, Encode, Encoded
from radapter.training.feeding import ON_DEVICE, moved

Teacher = Callable[[], AbstractContextManager[nn.Module]]
Theirs = tuple[Tensor, Tensor, Tensor]
"""Of a teacher: features of pictures and of texts, and its scale"""


@dataclass(frozen=True)
class _Inputs:
    """A batch as the towers take it, on the model's device."""

    batch: Batch
    images: Tensor
    """This process's"""
    tokens: Tensor
    """Of the batch's own texts, if a term reads them, then of the texts of each term"""
    ends: list[int]
    """Where in `tokens` the own texts end, then those of each term"""
    length: int | None
    """Tokens up to which the decoder reads a text; None: no term asks for pairs"""
    precision: torch.dtype | None
    micro_batch: int | None
    pixels: Callable[[Tensor], Tensor]

    def encoded(
        self, model: nn.Module, first_text: int = 0, together: bool = False
    ) -> tuple[BatchFeatures, BatchFeatures]:
        """Of the pictures, and of the texts from one on; `together`: also what a decoder reads."""
        of_pictures = encoding.picture_states if together else encoding.encode_pictures
        states = functools.partial(encoding.text_states, self.length)
        of_tokens: Encode = states if together else encoding.encode_tokens

        def encode(
            model: nn.Module, part: Tensor, precision: torch.dtype | None
        ) -> Tensor | Encoded:
            return of_pictures(model, self.pixels(part), precision)

        batch, tokens = self.batch, self.tokens[first_text:]
        columns: dict[str, Tensor] = {n: batch[n] for n in ("groups", "domains") if n in batch}
        first, total = batch.get("first", 0), len(batch["groups"])
        share = distributed.share(len(tokens))  # each process encodes so many distinct ones
        pictures = BatchPart(encode, self.images, first, total, self.micro_batch, columns)
        texts = BatchPart(of_tokens, tokens[share], share.start, len(tokens), self.micro_batch)
        found = [BatchFeatures(model, part, self.precision) for part in (pictures, texts)]
        return found[0], found[1]


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
    inputs = _inputs(model, batch, terms, device, precision, micro_batch, pixels)
    # Teachers first: to be one, a model may change tensors that the graph of a step keeps.
    theirs = _of_teachers(inputs, terms, teachers)
    pictures, texts = inputs.encoded(model, together=inputs.length is not None)
    addends, pairs = _addends(model, inputs, terms, theirs, pictures, texts)
    loss = functools.reduce(torch.add, addends)
    # Every process could have the whole gradient of what the loss reaches directly: one has it.
    parts = (*pairs, pictures, texts)
    leaves = None if distributed.is_main_process() else [part.features for part in parts]
    (scaler.scale(loss) if scaler else loss).backward(inputs=leaves)
    for part in parts:  # pairs first, which give states of pictures and texts their gradients
        if pairs and part not in pairs:
            part.add_up_states()
        part.backward()
    return loss.detach()


def _inputs(
    model: nn.Module,
    batch: Batch,
    terms: Sequence[Term],
    device: torch.device,
    precision: torch.dtype | None,
    micro_batch: int | None,
    pixels: Callable[[Tensor], Tensor],
) -> _Inputs:
    none = batch["tokens"][:0]
    drawn = [term.texts() if term.texts else none for term in terms]
    own = batch["tokens"] if any(t.loss and t.reads_texts for t in terms) else none
    ends = list(itertools.accumulate(map(len, drawn), initial=len(own)))
    tokens = shorten(model, torch.cat([own, *drawn]))
    together = any(term.pairs for term in terms)
    length = matching.longest(model, tokens) if together else None
    tokens = moved(tokens, device)
    batch = {**batch, **{name: moved(batch[name], device) for name in ON_DEVICE if name in batch}}
    images = batch["images"]
    if not any(term.reads_images for term in terms):
        images = torch.empty(0, 1, device=device)  # like features, which stay as they are
    elif not len(images):  # this process has none of the batch's pictures
        images = images.new_empty(0, 3, *image_size(model))
    return _Inputs(batch, images, tokens, ends, length, precision, micro_batch, pixels)


def _of_teachers(
    inputs: _Inputs, terms: Sequence[Term], teachers: Mapping[str, Teacher]
) -> dict[str, Theirs]:
    theirs: dict[str, Theirs] = {}
    for name in dict.fromkeys(term.teacher for term in terms if term.teacher):
        start = _first_read([term for term in terms if term.teacher == name], inputs.ends)
        with torch.no_grad(), teachers[name]() as teacher:
            found = [part.features.detach() for part in inputs.encoded(teacher, start)]
            padded = F.pad(found[1], (0, 0, start, 0))
            theirs[name] = found[0], padded, teacher.logit_scale.exp()  # type: ignore[operator]
    return theirs


def _first_read(terms: Sequence[Term], ends: Sequence[int]) -> int:
    """The first text that a teacher of these terms is to encode.

    Args:
        ends: of the batch's own texts, then of those of each term.
    """
    if any(term.reads_texts for term in terms):
        return 0
    return ends[0] if any(term.texts for term in terms) else ends[-1]


def _addends(
    model: nn.Module,
    inputs: _Inputs,
    terms: Sequence[Term],
    theirs: Mapping[str, Theirs],
    pictures: BatchFeatures,
    texts: BatchFeatures,
) -> tuple[list[Tensor], list[BatchFeatures]]:
    """The addends of the loss, and the pairs that a decoder read for them."""
    batch, ends = inputs.batch, inputs.ends
    labelled, scale = labelled_part(batch), model.logit_scale.exp()  # type: ignore[operator]
    addends: list[Tensor] = []
    pairs: list[BatchFeatures] = []
    for term, drawn in zip(terms, itertools.starmap(slice, itertools.pairwise(ends)), strict=True):
        if term.loss and count_of(batch, term.rows):
            alone = term.rows == "labelled"
            own = slice(min(ends[0], batch.get("labelled_texts", ends[0])) if alone else ends[0])
            rows, seen = rows_of(batch, term.rows), labelled if alone else batch
            then = _features(theirs[term.teacher], rows, own, drawn) if term.teacher else None
            now = _features((pictures.features, texts.features, scale), rows, own, drawn)
            if term.pairs:
                numbers = term.pairs(now, seen)
                read_at = matching.last_tokens(model, inputs.tokens)
                pairs.append(encoding.read_together(pictures, texts, numbers, read_at))
                now = dataclasses.replace(now, matches=pairs[-1].features)
            addends.append(term.weight * term.loss(now, then, seen))
        if term.penalty:
            addends.append(term.weight * term.penalty())
    return addends, pairs


def _features(of: Theirs, rows: slice, own: slice, drawn: slice) -> Features:
    pictures, texts, scale = of
    return Features(pictures[rows], texts[own], texts[drawn], scale)
