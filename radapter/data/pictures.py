"""Pictures without labels: one file, a folder and all below it, or the rows of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL import Image

from radapter.data.left_out import LeftOut, lines_of, merged
from radapter.data.listing import list_pictures
from radapter.data.pixels import IMAGE_EXTENSIONS, USUAL, read_picture
from radapter.data.sources.table import TableData, picture_path
from radapter.data.stores import file_stamp
from radapter.data.table_rows import SEPARATED
from radapter.data.videos import is_video
from radapter.errors import BrokenInput
from radapter.names import to_bytes

COLUMN = "filepath"


@dataclass(frozen=True)
class Pictures:
    """Names of pictures and where they are; each is read when asked for."""

    root: Path
    keys: list[str]
    """Paths relative to `root`, with `/`; in a table, as they stand there"""
    left_out: LeftOut = field(default_factory=dict)
    """What was passed over, by reason: see `radapter.data.left_out`"""
    places: list[str] = field(default_factory=list)
    """Where each is below `root`, if that is not its key"""
    frames: ClassVar[int] = 1
    """Of a clip"""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> Image.Image:
        """The RGB picture; BrokenInput names it if it cannot be read."""
        return read_picture(self.path(index))

    def path(self, index: int) -> Path:
        return self.root / (self.places or self.keys)[index]

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of change in ns; (-1, -1) if the file is not there."""
        return file_stamp(self.path(index))[:2]

    def fingerprint(self) -> str:
        """sha256 over names, sizes in bytes and times of change: cheap enough for a million, and
        blind only to a picture that was replaced with its name, size and time kept."""
        return fingerprint_of(self.keys, self.stamp)

    def reading(self) -> dict[str, str]:
        """How pictures are read, for what is made of them."""
        return USUAL.facts()


def fingerprint_of(keys: Sequence[str], stamp: Callable[[int], tuple[int, int]]) -> str:
    """See `Pictures.fingerprint`."""
    digest = hashlib.sha256()
    for index, key in enumerate(keys):
        size, changed = stamp(index)
        digest.update(to_bytes(f"{key}\0{size}\0{changed}\0"))
    return digest.hexdigest()


def open_several(paths: Sequence[Path | str]) -> Pictures:
    """Pictures and folders of pictures, each picture once; `keys` are paths as they were named.

    Raises:
        BrokenInput: some are not there (the message names all of them), or a folder has none.
    """
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing:
        raise BrokenInput(f"No such picture, folder or table: {', '.join(missing)}.")
    found = [open_pictures(path) for path in paths]
    if len(found) == 1:
        return found[0]
    keys = [part.path(i).as_posix() for part in found for i in range(len(part))]
    left_out = merged(
        *(
            {reason: [(part.root / name).as_posix() for name in names]}
            for part in found
            for reason, names in part.left_out.items()
        )
    )
    return Pictures(Path(), list(dict.fromkeys(keys)), left_out)


def open_pictures(path: Path | str, image_column: str = COLUMN) -> Pictures:
    """Pictures to be used.

    Args:
        path: a picture, a folder (with all folders below it, linked ones too; hidden files and
            folders are left out), or a table of picture paths, relative to the table's folder.
        image_column: the column of the paths, if it is a table.

    Raises:
        BrokenInput: there is no such file or folder, or no pictures are in it.
    """
    path = Path(path)
    if path.is_dir():
        found = list_pictures(path)
        if not found.pictures:
            why = "".join(f" ({line})" for line in lines_of(found.left_out))
            some = any(map(is_video, found.left_out.get("ending", ())))
            videos = " Features of videos are written by radapter embed --frames 12" if some else ""
            raise BrokenInput(
                f"No pictures in {path} or below it{why}. {len(IMAGE_EXTENSIONS)} endings are "
                f"read, such as .jpg, .png and .webp.{videos}"
            )
        return Pictures(path, found.pictures, found.left_out)
    if not path.is_file():
        raise BrokenInput(f"No such picture, folder or table: {path}.")
    if path.suffix.lower() not in SEPARATED:
        return Pictures(path.parent, [path.name])
    settings = TableData(
        source="table",
        path=str(path.absolute()),  # else it would be looked for under the data root
        task="captions",
        image_column=image_column,
        text_column=image_column,
    )
    table = settings.open()
    if not table.keys:
        raise BrokenInput(f"{path} has no rows.")
    places = [str(picture_path(path.parent, key, settings)) for key in table.keys]
    return Pictures(path.parent, table.keys, table.left_out, places)
