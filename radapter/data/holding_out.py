"""Which pictures are held out: by a hash of the name, so that a set may grow or move."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from radapter import names


def by_hash(units: Sequence[str], share: float) -> set[str]:
    """About a share of the units (names of pictures or of what they show), wherever they lie:
    adding some moves no other one."""
    return {unit for unit in units if _place(unit) < share}


def by_class(units: Sequence[str], labels: Sequence[int], share: float) -> set[str]:
    """The same, but that a class of two units or more is on both sides, and one of a single unit
    in training.

    Where the hash leaves a class with none on one side, the unit next to the limit goes there, so
    that no more than that one moves when a class grows. A unit of several classes is of the first.

    Args:
        labels: the class of each unit.
    """
    class_of: dict[str, int] = {}
    for unit, label in zip(units, labels, strict=True):
        class_of.setdefault(unit, label)
    of_class: dict[int, list[str]] = {}
    for unit, label in class_of.items():
        of_class.setdefault(label, []).append(unit)
    held: set[str] = set()
    for own in of_class.values():
        own.sort(key=_place)
        number = sum(_place(unit) < share for unit in own)
        least = 1 if len(own) > 1 and share > 0 else 0
        held.update(own[: min(max(number, least), len(own) - 1)])
    return held


def too_small(units: Sequence[str], labels: Sequence[int]) -> list[int]:
    """The classes of a single unit: nothing of them can be held out, [classes]."""
    of_class: dict[int, set[str]] = {}
    for unit, label in zip(units, labels, strict=True):
        of_class.setdefault(label, set()).add(unit)
    return sorted(label for label, own in of_class.items() if len(own) == 1)


def _place(unit: str) -> float:
    """From 0 to 1."""
    return int(hashlib.sha256(names.to_bytes(unit)).hexdigest()[:8], 16) / 2**32
