"""Classes of one name are one answer: no text tells them apart, so they would split its
probability."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def key_of(name: str) -> str:
    """Equal for names in which CLIP reads the same text: they may differ in case, spaces and the
    form of accents."""
    return " ".join(unicodedata.normalize("NFC", name).split()).casefold()


def first_of_name(names: Sequence[str]) -> list[int]:
    """Class number -> the first class of the same name, [classes]."""
    first: dict[str, int] = {}
    return [first.setdefault(key_of(name), number) for number, name in enumerate(names)]


def distinct(classes: Mapping[str, Any]) -> dict[str, Any]:
    """The classes, of those of one name the first.

    Args:
        classes: `names`, one a class, and whatever else there is of each: `prompts`, or `features`
            [classes, dim].
    """
    kept = list(dict.fromkeys(first_of_name(classes["names"])))
    return {
        key: [of[i] for i in kept] if isinstance(of, list | tuple) else of[kept]
        for key, of in classes.items()
        if of is not None
    }
