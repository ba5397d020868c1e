"""Which files and folders below a folder are clips, and which of them a list of names means."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from radapter.data.pixels import IMAGE_EXTENSIONS, is_hidden, is_picture
from radapter.data.settings import MissingData, check_missing
from radapter.data.videos import VIDEO_EXTENSIONS, is_video

ANIMATED = (".gif", ".webp", ".apng")
"""Endings of pictures that are clips by themselves; a folder of others is a clip, and they are its
frames"""


def list_clips(root: Path) -> list[str]:
    """Videos, animated pictures and folders of frames below a folder, as paths relative to it."""
    return sorted(_clips(root))


def is_clip(name: str) -> bool:
    """Whether a file is one by its ending."""
    return is_video(name) or name.lower().endswith(ANIMATED)


def frames_in(path: Path) -> int:
    """How many frames a picture has; 0 if it cannot be read."""
    try:
        with Image.open(path) as opened:
            return int(getattr(opened, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, OverflowError, Image.DecompressionBombError):
        return 0


def _clips(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        place = PurePosixPath(Path(folder).relative_to(root).as_posix())
        own = [name for name in files if is_clip(name)]
        yield from (str(place / name) for name in own if not is_hidden(name))
        if place.parts and not own and any(map(is_picture, files)):
            yield str(place)


def bare(name: str) -> str:
    """A clip's name without its ending; ids may have dots in them."""
    name = name.replace("\\", "/")
    ending = PurePosixPath(name).suffix
    known = ending.lower() in (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS)
    return name.removesuffix(ending) if known else name


def find_clips(root: Path, names: Sequence[str], allowed: int) -> list[str]:
    """Where each clip lies below a folder: at the path that is its name, with whatever ending; else
    anywhere, if one clip alone is called so.

    Args:
        allowed: how many may be missing; those are looked for when they are read.

    Raises:
        MissingData: there is no such folder, or none of the clips is there.
        BrokenInput: more are missing; the message has their number and the first few names.
    """
    if not root.is_dir():
        raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
    there = list_clips(root)
    by_path = {bare(path): path for path in there}
    called = Counter(PurePosixPath(path).name for path in by_path)
    by_name = {
        name: path for key, path in by_path.items() if called[name := PurePosixPath(key).name] == 1
    }
    found, missing = [], []
    for name in names:
        key = bare(name)
        path = by_path.get(key, by_name.get(PurePosixPath(key).name))
        if path is None and (root / name).exists():  # a picture that does not move
            path = name
        if path is None:
            missing.append(name)
        found.append(path or name)
    check_missing(missing, len(found), allowed, "videos", f"below {root}")
    return found
