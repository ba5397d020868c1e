"""What a report shows of a task beside its numbers: what was found first, and pixels with names.

Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
MAPS = 3
"""Pictures of a data set whose pixels are kept"""


@dataclass(frozen=True)
class Firsts:
    """What a model finds first for each query; pictures are places in the data set."""

    queries: list[int]
    said: list[str]
    """The class of each query, or what is to be changed of it"""
    first: list[int]
    right: list[int]
    """Of the right pictures the one that is found first"""
    ranks: list[int]
    """Its rank, from 1; a wrong picture that is as similar stands before it"""
    way: str = ""
    """What queries are made of, where there are several ways"""


@dataclass(frozen=True)
class Maps:
    """The class that a model names at each pixel of a few pictures, by their place in the data set:
    int [height, width], 0 for none and n + 1 for class n."""

    named: dict[int, np.ndarray] = field(default_factory=dict)


def drawn(things: Iterable[T], most: int, names: Sequence[str] | None = None) -> list[T]:
    """Some of the things, drawn by a hash of their names, so that nobody picked them.

    Args:
        names: of each; None: things are their own names.
    """
    known = list(things)
    keys = [str(thing) for thing in known] if names is None else names
    order = sorted(range(len(known)), key=lambda i: hashlib.sha256(repr(keys[i]).encode()).digest())
    return [known[i] for i in order[:most]]
