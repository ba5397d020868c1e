"""What the towers make of a batch: features of its pictures, of its texts, and of pairs of both.

A process encodes its share, whole or in chunks. It has the features of all, and takes gradients of
them back through its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter import distributed
from radapter.methods.batch_rows import of_frames, rows
from radapter.models import encode_text, matching
from radapter.models.frames import video_features

Encoded = tuple[Tensor, ...]
"""A row for each input: its features, and where they are asked for the states of its tokens"""
OF_CLIPS = 3, 5
"""Dimensions of clips: of their frames' features, of their pixels"""
Encode = Callable[[nn.Module, Tensor, torch.dtype | None], Tensor | Encoded]


@dataclass(frozen=True)
class BatchPart:
    """What this process encodes of a batch's pictures, of its texts, or of pairs of both."""

    encode: Encode
    own: Tensor
    """[rows, ...] on the model's device"""
    first: int
    """Where the own rows stand among those of the whole batch"""
    total: int
    micro_batch: int | None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """What is known of all rows of the whole batch"""

    def rows(self, start: int) -> AbstractContextManager[None]:
        """See `methods.batch_rows`; `start` is among the own rows."""
        return rows(self.first + start, self.total, self.columns)

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
        own = [torch.cat([rows.detach() for rows in parts]) for parts in zip(*found, strict=True)]
        first, total = inputs.first, inputs.total
        self.outputs = [distributed.gather(rows, first, total).requires_grad_() for rows in own]
        self.features = self.outputs[0]

    @property
    def states(self) -> Tensor:
        """Of the tokens of every row, [rows, tokens, width]."""
        return self.outputs[1]

    def _encode(self, start: int, part: Tensor) -> Encoded:
        _restore(self.state, part.device)
        if not len(part):  # one blank row, so that draws go on as in the other processes
            blank = part.new_zeros(1, *part.shape[1:])
            with rows(0, self.inputs.total, self.inputs.columns):
                found = _as_tuple(self.inputs.encode(self.model, blank, self.precision))
            return tuple(output[:0] for output in found)
        with self.inputs.rows(start):
            return _as_tuple(self.inputs.encode(self.model, part, self.precision))

    def backward(self) -> None:
        """From the gradients of the features to those of what is trained."""
        first = self.inputs.first
        own = slice(first, first + len(self.inputs.own))
        given = {n: o.grad[own] for n, o in enumerate(self.outputs) if o.grad is not None}
        if not given:  # no term asks for them
            return
        for start, part in self.inputs.chunks():
            found = self._encode(start, part) if self.graph is None else self.graph
            trained = [n for n in given if found[n].requires_grad]
            if not trained:  # nothing of this tower is trained
                return
            # What is computed again in here has the same rows.
            frames = part.shape[1] if part.dim() in OF_CLIPS else 1
            with self.inputs.rows(start), of_frames(frames):
                torch.autograd.backward(
                    [found[n] for n in trained],
                    [given[n][start : start + len(part)] for n in trained],
                )

    def add_up_states(self) -> None:
        """Add up the gradients of states, of which each process has those of its pairs."""
        if self.states.grad is None:
            self.states.grad = torch.zeros_like(self.states)
        distributed.add_up(self.states.grad)


def _as_tuple(found: Tensor | Encoded) -> Encoded:
    return found if isinstance(found, tuple) else (found,)


def read_together(
    pictures: BatchFeatures, texts: BatchFeatures, numbers: Tensor, last: Tensor
) -> BatchFeatures:
    """Matching logits of pairs of a picture and a text, of which each process reads its share.

    Args:
        numbers: rows of pictures and of texts [pairs, 2].
        last: the place of each text's last token [texts].
    """

    def read(model: nn.Module, part: Tensor, precision: torch.dtype | None) -> Tensor:
        seen, said = part.unbind(dim=1)
        return match_pairs(model, pictures.states[seen], texts.states[said], last[said], precision)

    share, inputs = distributed.share(len(numbers)), pictures.inputs
    part = BatchPart(read, numbers[share], share.start, len(numbers), inputs.micro_batch)
    return BatchFeatures(pictures.model, part, pictures.precision)


def encode_pictures(model: nn.Module, pictures: Tensor, precision: torch.dtype | None) -> Tensor:
    """Features [batch, dim], unit norm, fp32, of pictures [batch, 3, height, width], or of clips
    [batch, frames, 3, height, width], or [batch, frames, dim] of which the image tower has read
    the frames.

    The towers compute in `precision`, if there is one; the normalisation does not. What are
    features already stays as it is.
    """
    if pictures.dim() == 2:
        return pictures
    with _autocast(pictures.device, precision):
        if pictures.dim() in OF_CLIPS:
            with of_frames(pictures.shape[1]):
                return video_features(model, pictures)
        features = model.encode_image(pictures)  # type: ignore[operator]
    return F.normalize(features.float(), dim=-1)


def encode_tokens(model: nn.Module, tokens: Tensor, precision: torch.dtype | None) -> Tensor:
    """Features [texts, dim], unit norm, fp32, of token ids [texts, length]."""
    with _autocast(tokens.device, precision):
        features = encode_text(model, tokens)
    return F.normalize(features.float(), dim=-1)


def picture_states(model: nn.Module, pictures: Tensor, precision: torch.dtype | None) -> Encoded:
    """Features as `encode_pictures` has them, and what the decoder reads, fp32."""
    with _autocast(pictures.device, precision):
        features, states = matching.of_pictures(model, pictures)
    return F.normalize(features.float(), dim=-1), states.float()


def text_states(
    length: int | None, model: nn.Module, tokens: Tensor, precision: torch.dtype | None
) -> Encoded:
    """Features as `encode_tokens` has them, and what the decoder reads of tokens up to a length,
    fp32."""
    with _autocast(tokens.device, precision):
        features, states = matching.of_texts(model, tokens, length)
    return F.normalize(features.float(), dim=-1), states.float()


def match_pairs(
    model: nn.Module, pictures: Tensor, texts: Tensor, last: Tensor, precision: torch.dtype | None
) -> Tensor:
    """See `matching.match_logits`."""
    with _autocast(pictures.device, precision):
        return matching.match_logits(model, pictures, texts, last)


def _autocast(device: torch.device, precision: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, precision, enabled=precision is not None)


def _random_state(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _restore(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for cuda in state[1:]:
        torch.cuda.set_rng_state(cuda, device)
