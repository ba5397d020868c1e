"""Annotation files that name pictures which lie elsewhere: finding the pictures."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from radapter.data.dataset import Dataset
from radapter.data.listing import names_in_folder
from radapter.data.settings import Data, MissingData, check_missing
from radapter.data.stores import Files

CaptionProtocol = Literal["vse++", "clip-benchmark"]
"""Which captions of a picture count. `vse++`: its first five, as VSE++ and most papers since have
it. `clip-benchmark`: all of them. Of COCO's test split that is 25,000 captions or 25,010."""
KEPT: dict[CaptionProtocol, int | None] = {"vse++": 5, "clip-benchmark": None}
"""How many captions of a picture are kept, from the first on; None: all"""


def pictures_with_captions(
    settings: Data,
    source: str,
    pictures: Iterable[tuple[str, list[str]]],
    root: Path,
    folders: Iterable[str],
    protocol: CaptionProtocol,
) -> Dataset:
    """The pictures that an annotation file names, in its order; a group is a picture.

    Pictures without a caption are left out.

    Args:
        pictures: the name of each, which becomes its key, and all its captions.
        root: see `find_pictures`, as for `folders`.
    """
    most = KEPT[protocol]
    kept = [(name, [text for text in texts if text][:most]) for name, texts in pictures]
    without = [name for name, texts in kept if not texts]
    kept = [(name, texts) for name, texts in kept if texts]
    keys = [name for name, _ in kept]
    found = find_pictures(root, keys, folders, settings.broken_images)
    files = Files(root, found, settings.reading())
    return Dataset(
        source=source,
        keys=keys,
        read=files.read,
        captions=[texts for _, texts in kept],
        groups=list(range(len(keys))),
        protocol={
            "captions": protocol,
            "of each picture": f"the first {most} captions" if most else "all captions",
        },
        stamp=files.stamp,
        digest=files.digest,
        left_out={"without caption": without} if without else {},
    )


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
        raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
    folders = list(dict.fromkeys(folders))
    names_in = functools.cache(names_in_folder)
    found, missing = [], []
    for name in names:
        places = [PurePosixPath(folder, name) for folder in folders]
        place = next((p for p in places if p.name in names_in(root / p.parent)), None)
        if place is None:
            missing.append(name)
        found.append(str(place or places[0]))
    where = " or ".join(str(root / folder) for folder in folders)
    check_missing(missing, len(found), allowed, "pictures", f"in {where}")
    return found
