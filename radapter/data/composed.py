"""Sets of composed retrieval: pictures with edits, and two sets as one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radapter.data.captions import find_pictures
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit, placed
from radapter.data.left_out import merged
from radapter.data.searched import all_or_none, name_in, of_part
from radapter.data.settings import Data
from radapter.data.stores import Files
from radapter.errors import BrokenInput


def with_choosing(scored: Dataset, choosing: Dataset) -> Dataset:
    """Both as one data set, in which the edits of the second only choose settings. A picture that
    is in both is one."""
    parts = [scored, choosing]
    places: dict[str, tuple[int, int]] = {}
    row: dict[str, int] = {}
    rows: list[dict[int, int]] = [{}, {}]
    for number, part in enumerate(parts):
        for i, key in enumerate(part.keys):
            name = name_in(parts, places, number, i, key)
            places.setdefault(name, (number, i))
            rows[number][i] = row.setdefault(name, len(row))
    where = list(places.values())
    edits = placed(choosing.edits, rows[1])
    captioned = all(part.captions for part in parts)
    return Dataset(
        source=scored.source,
        keys=list(places),
        read=functools.partial(of_part, [part.read for part in parts], where),
        captions=[parts[p].captions[i] for p, i in where] if captioned else [],
        groups=[parts[p].groups[i] for p, i in where],
        edits=[*scored.edits, *(dataclasses.replace(edit, chooses=True) for edit in edits)],
        measured=scored.measured,
        protocol=scored.protocol | {"weight of the text": f"chosen on {choosing.source}"},
        stamp=all_or_none([p.stamp for p in parts if p.stamp is not None], parts, where),
        digest=all_or_none([p.digest for p in parts if p.digest is not None], parts, where),
        left_out=merged(scored.left_out, choosing.left_out),
        notes=[*scored.notes, *choosing.notes],
    )


def edited(
    settings: Data,
    source: str,
    root: Path,
    pictures: dict[str, str],
    edits: Sequence[Edit],
    measured: Sequence[str],
    protocol: str,
) -> Dataset:
    """Pictures that are files, with edits of them.

    Args:
        pictures: by the name of each, which becomes its key, its path from `root`.
        edits: their pictures are places in `pictures`.
        measured: what the benchmark reports.
        protocol: what is ranked.
    """
    found = find_pictures(root, pictures.values(), [""], settings.broken_images)
    files = Files(root, found, settings.reading())
    return Dataset(
        source=source,
        keys=list(pictures),
        read=files.read,
        groups=list(range(len(pictures))),
        edits=list(edits),
        measured=list(measured),
        protocol={"gallery": protocol},
        stamp=files.stamp,
        digest=files.digest,
    )


def place_of(places: dict[Any, int], name: Any, path: Path) -> int:
    """The place of a picture that an annotation names.

    Raises:
        BrokenInput: the set has no such picture.
    """
    if name not in places:
        raise BrokenInput(f"{path} names a picture that the split has not: '{name}'.")
    return places[name]
