"""Videos to be used: all below a folder, each whole or in pieces of so many seconds.

A piece is called NAME#t=FROM,TO, in seconds, as web addresses have it (W3C Media Fragments).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from radapter.data.clip_files import is_clip, list_clips
from radapter.data.clips import shares
from radapter.data.left_out import LeftOut
from radapter.data.pictures import fingerprint_of
from radapter.data.pixels import USUAL
from radapter.data.stores import file_stamp
from radapter.data.videos import Videos, decoded, is_video, length_of, need_decoder
from radapter.errors import BrokenInput

FRAMES = 12
"""Of a piece, where it is not said"""


@dataclass(frozen=True)
class Pieces:
    """Names of clips and where they are; each is read when asked for."""

    root: Path
    keys: list[str]
    frames: int
    """Of each clip, from the middles of so many segments of equal length"""
    window: float | None = None
    """Seconds of a piece; None: clips are whole"""
    left_out: LeftOut = field(default_factory=dict)
    """What was passed over, by reason: see `radapter.data.left_out`"""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> list[Image.Image]:
        """The frames; BrokenInput names a clip that cannot be read."""
        name, span = name_and_span(self.keys[index])
        if span is None:
            return Videos(self.root, [name], self.frames, "clip", USUAL).read(0)
        path = self.root / name
        first, last = span
        length = length_of(path)
        taken = [(first + share * (last - first)) / length for share in shares(self.frames)]
        return decoded(path, taken, USUAL)

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of change in ns; (-1, -1) if the clip is not there."""
        name, _ = name_and_span(self.keys[index])
        path = self.root / name
        if path.is_dir():
            return Videos(self.root, [name], self.frames, "clip", USUAL).stamp(0)[:2]
        return file_stamp(path)[:2]

    def fingerprint(self) -> str:
        """As of `Pictures`."""
        return fingerprint_of(self.keys, self.stamp)

    def reading(self) -> dict[str, str]:
        """How clips are read, for what is made of them."""
        window = f"{self.window:g} s" if self.window else "whole clips"
        return {**USUAL.facts(), "frames": str(self.frames), "window": window}


def name_and_span(key: str) -> tuple[str, tuple[float, float] | None]:
    """The file that a piece is of, and from when to when, in seconds; None: all of it."""
    found = re.fullmatch(r"(.+)#t=([\d.]+),([\d.]+)", key)
    if found is None:
        return key, None
    return found[1], (float(found[2]), float(found[3]))


def open_clips(root: Path | str, frames: int = FRAMES, window: float | None = None) -> Pieces:
    """Videos, animated pictures and folders of frames below a folder, or one video.

    Args:
        frames: of each clip or piece.
        window: seconds; a longer video is cut into pieces of about this length, all equally long.

    Raises:
        BrokenInput: there is no such folder or video, or no clips are in it.
        MissingDependency: some are videos, and PyAV is not installed.
    """
    root = Path(root)
    if root.is_file() and is_clip(root.name):
        root, names = root.parent, [root.name]
    elif root.is_dir():
        names = list_clips(root)
    else:
        raise BrokenInput(f"No such folder: {root}.")
    if not names:
        raise BrokenInput(f"No videos, animated pictures or folders of frames in {root}.")
    need_decoder(names, str(root))
    if window is None:
        return Pieces(root, names, frames)
    keys = [key for name in names for key in _pieces(root, name, window)]
    return Pieces(root, keys, frames, window)


def _pieces(root: Path, name: str, window: float) -> Sequence[str]:
    """The names of a clip's pieces; of one that cannot be read its own, so that whoever reads it
    says what is wrong."""
    if not is_video(name):
        return [name]
    try:
        length = length_of(root / name)
    except BrokenInput:
        return [name]
    number = max(1, round(length / window))
    if number == 1:
        return [name]
    ends = [round(length * k / number, 2) for k in range(number + 1)]
    return [f"{name}#t={a:.9g},{b:.9g}" for a, b in itertools.pairwise(ends)]
