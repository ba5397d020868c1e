"""Which rows of a batch a forward pass holds, and what is known of them.

A batch may be encoded in chunks, on one device or on several. What is drawn for each sample is then
drawn for the whole batch and cut, so that every chunk draws as in an unchunked batch. So too what
is known of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor

NOTHING: Mapping[str, Tensor] = MappingProxyType({})

_present: tuple[int, int] | None = None
_columns = NOTHING
_frames = 1


@contextmanager
def rows(first: int, total: int, columns: Mapping[str, Tensor] = NOTHING) -> Iterator[None]:
    """The forward passes (and recomputations) inside hold the rows from `first` on, of `total`.

    Args:
        columns: what is known of all of these, [total] each, by the names of a batch.
    """
    global _present, _columns
    before = _present, _columns
    _present, _columns = (first, total), columns
    try:
        yield
    finally:
        _present, _columns = before


@torch.compiler.disable
def column(name: str, number: int) -> Tensor | None:
    """What is known of the rows that the present forward pass holds, [number]; the frames of a clip
    have the same. None: nothing, as in evaluation.

    Args:
        name: `groups` or `domains`, numbers from 0, of which -1 is none.
        number: rows of the tower's input.
    """
    if name not in _columns:
        return None
    first = 0 if _present is None else _present[0]
    own = _columns[name][first : first + number // _frames]
    return own if _frames == 1 else own.repeat_interleave(_frames)


@contextmanager
def of_frames(number: int) -> Iterator[None]:
    """Each row of the batch is a clip, and the forward passes inside hold so many frames of it, one
    under the other."""
    global _frames
    before, _frames = _frames, number
    try:
        yield
    finally:
        _frames = before


def bernoulli_of_rows(z: Tensor, probability: float, *, elements: bool = False) -> Tensor:
    """A draw for each row of z [rows, ...]: 0 or 1, [rows, 1, ...], in z's type and place. The
    frames of a clip have the same one.

    Args:
        elements: a draw for each element of z, in its shape.
    """
    number = z.shape[0] // _frames
    first, total = _present or (0, number)
    shape = [total, *(z.shape[1:] if elements else [1] * (z.dim() - 1))]
    draws = torch.empty(shape, device=z.device, dtype=z.dtype).bernoulli_(probability)
    own = draws[first : first + number]
    return own if _frames == 1 else own.repeat_interleave(_frames, dim=0)
