"""The built-in edits: pairs of concepts with what is to be changed of the one to have the other.

They were made by rule from the names of concepts (`benchmarks/emoji_edits.py`). Five styles have
further concepts, which are in edits alone.
"""

from __future__ import annotations

import functools
import json
import zipfile
from typing import Any, NamedTuple

from radapter.data import emoji
from radapter.data.tar_index import Member


class Row(NamedTuple):
    """An edit; concepts are places in `concepts`."""

    kind: str
    reference: int
    target: int
    text: str


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads((emoji.HERE / "edits.json").read_text(encoding="utf-8"))


@functools.cache
def concepts() -> list[dict[str, Any]]:
    """Hexcode, name, subgroup and fold: first the concepts of all styles, then those of five."""
    return [*emoji.concepts(), *_table()["further"]]


def number_of(style: str) -> int:
    """How many of the concepts a style has, from the first on."""
    return len(concepts() if style in _table()["further_styles"] else emoji.concepts())


@functools.cache
def kinds() -> list[str]:
    """The kinds of edits, sorted."""
    return list(_table()["kinds"])


@functools.cache
def rows() -> list[Row]:
    """Every edit, kind by kind."""
    texts = _table()["texts"]
    return [
        Row(kind, reference, target, texts[text])
        for kind, own in _table()["kinds"].items()
        for reference, target, text in own
    ]


@functools.cache
def alike(style: str) -> frozenset[int]:
    """The concepts whose picture looks the same as another's in a style."""
    return frozenset(_table()["alike"][style])


def member(style: str, hexcode: str) -> Member:
    """Where a picture lies, of any of the concepts."""
    further = _further()
    found = further.get(f"{style}/{hexcode}")
    return emoji.member(style, hexcode) if found is None else found


@functools.cache
def _further() -> dict[str, Member]:
    path = emoji.HERE / "further.zip"
    with zipfile.ZipFile(path) as archive:  # a local header is 30 bytes and the name
        return {
            info.filename: Member(
                path, info.filename, info.header_offset + 30 + len(info.filename), info.file_size
            )
            for info in archive.infolist()
        }
