"""Annotation files that name pictures which lie elsewhere: reading them, finding the pictures."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from radapter.data.settings import MissingData
from radapter.errors import BrokenInput

CaptionProtocol = Literal["vse++", "clip-benchmark"]
"""Which captions of a picture count. `vse++`: its first five, as VSE++ and most papers since have
it. `clip-benchmark`: all of them. Of COCO's test split that is 25,000 captions or 25,010."""
KEPT: dict[CaptionProtocol, int | None] = {"vse++": 5, "clip-benchmark": None}
"""How many captions of a picture are kept, from the first on; None: all"""


def caption_facts(protocol: CaptionProtocol) -> dict[str, str]:
    """What a data set says of its protocol."""
    kept = KEPT[protocol]
    return {
        "captions": protocol,
        "of each picture": f"the first {kept} captions" if kept else "all captions",
    }


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MissingData: there is no such file.
        BrokenInput: it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingData(f"No such file: {path}.") from None
    except (OSError, ValueError) as error:
        raise BrokenInput(f"{path} is no readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise BrokenInput(f"{path} holds no JSON object.")
    return content


def find_pictures(
    root: Path, names: Iterable[str], folders: Iterable[str], allowed: int
) -> list[str]:
    """Where each picture lies, relative to `root`: in the first of some folders that has it.

    Folders are listed once and no picture is opened, so it is quick on a large set.

    Args:
        root: the folder that `folders` are below.
        names: paths of the pictures, relative to each of `folders`.
        folders: such as "" and "images".
        allowed: how many may be missing; those are looked for when they are read.

    Raises:
        MissingData: there is no such folder, or none of the pictures is there.
        BrokenInput: more are missing; the message has their number and the first few names.
    """
    if not root.is_dir():
        raise MissingData(f"No such folder: {root}.")
    folders = list(dict.fromkeys(folders))
    found, missing = [], []
    for name in names:
        places = [PurePosixPath(folder, name) for folder in folders]
        place = next((p for p in places if p.name in _listing(root / p.parent)), None)
        if place is None:
            missing.append(name)
        found.append(str(place or places[0]))
    _listing.cache_clear()
    if len(missing) > allowed:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        where = " or ".join(str(root / folder) for folder in folders)
        kind = MissingData if len(missing) == len(found) else BrokenInput
        raise kind(
            f"{len(missing)} of {len(found)} pictures are missing: {first}. Looked in {where}. "
            "Put them there, or set data.root to where they are."
        )
    return found


@functools.cache
def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()
