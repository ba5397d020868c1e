"""Which files below a folder are its pictures: the one walk of all who take pictures from folders.

Hidden files and folders are passed over, and so is a folder that was read already: links may lead
in a circle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from radapter.data.left_out import LeftOut, merged
from radapter.data.pixels import IMAGE_EXTENSIONS, is_hidden, is_picture
from radapter.errors import BrokenInput


@dataclass(frozen=True)
class Listing:
    """Names are relative to the folder, with `/`, and sorted."""

    pictures: list[str]
    left_out: LeftOut
    """`hidden` pictures, and files with an `ending` that is not read"""

    def under(self, folder: str) -> LeftOut:
        """What was left out, by names from the folder above."""
        return {why: [f"{folder}/{name}" for name in some] for why, some in self.left_out.items()}


def list_pictures(root: Path, *, below: bool = True) -> Listing:
    """The pictures in a folder and, unless `below` is false, in all below it, linked ones too.

    Raises:
        BrokenInput: a folder cannot be read.
    """
    # A link to a folder that holds the link is a circle, above the root too.
    seen = {_identity(folder) for folder in root.resolve().parents}
    pictures, hidden, others = [], [], []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        own = _identity(folder)
        if own in seen:
            folders.clear()
            continue
        seen.add(own)
        place = Path(folder).relative_to(root)
        for name in files:
            path = (place / name).as_posix()
            if is_picture(name):
                pictures.append(path)
            elif not is_hidden(name):
                others.append(path)
            elif name.lower().endswith(IMAGE_EXTENSIONS):
                hidden.append(path)
        for name in filter(is_hidden, folders):
            hidden += ((place / found).as_posix() for found in _inside(Path(folder), name))
        if not below:
            break
        folders[:] = sorted(name for name in folders if not is_hidden(name))
    left_out = merged({"ending": sorted(others), "hidden": sorted(hidden)})
    return Listing(sorted(pictures), left_out)


def class_folders(root: Path) -> list[str]:
    """Names of the folders right below one, sorted; hidden ones left out."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name))


def names_in_folder(folder: Path) -> frozenset[str]:
    """What lies in a folder; nothing if there is no such folder."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _inside(folder: Path, name: str) -> Iterator[str]:
    """Files with an ending of pictures in a hidden folder; it is looked at to count, no more."""
    for place, _, files in os.walk(folder / name):
        for file in files:
            if file.lower().endswith(IMAGE_EXTENSIONS):
                yield Path(place, file).relative_to(folder).as_posix()


def _identity(folder: Path | str) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _refuse(error: OSError) -> NoReturn:
    raise BrokenInput(f"Folder cannot be read: {error.filename}: {error.strerror}.") from None
