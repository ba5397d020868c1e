"""Frames of a clip as it lies on a disk: a video, an animated picture, or a folder of pictures.

Videos are read through PyAV. Only the frames that are wanted become pictures, and a long video is
not read whole: where the next one is far, reading goes on from the key frame before it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from radapter.data.clips import View, places, seen, shares
from radapter.data.listing import names_in_folder
from radapter.data.pixels import NO_VIDEO, USUAL, Reading, is_picture, read_picture, to_rgb
from radapter.data.stores import Stamp, file_stamp
from radapter.errors import BrokenInput, not_installed

VIDEO_EXTENSIONS = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm",
    ".wmv",
)  # fmt: skip
"""Endings of videos, in lower case"""
FAR = 4.0
"""Seconds to the next frame up to which reading goes on; farther, it starts from a key frame"""

GUESSED = ("mpeg", "mpegvideo")
"""Forms of which FFmpeg guesses the length, and behind a leap the times: they are read in order"""


def is_video(name: str) -> bool:
    """Whether PyAV reads a file of that name."""
    return name.lower().endswith(VIDEO_EXTENSIONS)


def need_decoder(names: Iterable[str], what: str) -> None:
    """Raises MissingDependency if some of these files are videos, and PyAV is not installed."""
    if any(map(is_video, names)) and importlib.util.find_spec("av") is None:
        raise not_installed(what, "av", "video")


@dataclass(frozen=True)
class Videos:
    """Clips that are videos, animated pictures, or folders of frames."""

    root: Path
    names: Sequence[str]
    """Relative to the root, or absolute"""
    frames: int
    view: View
    reading: Reading
    listed: Sequence[Sequence[str] | None] | None = None
    """Of a folder its frames in their order; None: all its pictures, by name and number"""

    def read(self, index: int, chance: bool = False) -> list[Image.Image]:
        """The frames that are seen; BrokenInput names a video that cannot be read."""
        taken = shares(self.frames, chance)
        first = 1 if self.view == "first-frame" else None
        return seen(self._read(index, taken, first), self.view, self.names[index])

    def read_anew(self, index: int) -> list[Image.Image]:
        return self.read(index, chance=True)

    def _read(self, index: int, taken: list[float], first: int | None) -> list[Image.Image]:
        path = self.root / self.names[index]
        if path.is_dir():
            files = self._files(index)
            if not files:
                raise _unreadable(path, "the folder has no pictures")
            chosen = [files[place] for place in places(len(files), taken)[:first]]
            pictures = [read_picture(file, reading=self.reading) for file in chosen]
            if len({picture.size for picture in pictures}) > 1:
                raise _unreadable(path, "its frames are of several sizes")
            return pictures
        if is_picture(path.name):
            return animated(path, taken, self.reading)[:first]
        return decoded(path, taken[:first], self.reading)

    def _files(self, index: int) -> list[Path]:
        folder = self.root / self.names[index]
        own = self.listed[index] if self.listed else None
        if own is None:
            own = sorted(filter(is_picture, names_in_folder(folder)), key=in_numbers)
        return [folder / name for name in own]

    def stamp(self, index: int) -> Stamp:
        path = self.root / self.names[index]
        if not path.is_dir():
            return file_stamp(path)
        stamps = [file_stamp(file) for file in self._files(index)] or [(-1, -1, -1)]
        sizes, changed, moved = zip(*stamps, strict=True)
        return sum(sizes), max(changed), max(moved)

    def digest(self, index: int) -> str | None:
        """sha256 of the file; of a folder, of its frames one behind the other."""
        path = self.root / self.names[index]
        found = hashlib.sha256()
        try:
            for file in self._files(index) if path.is_dir() else [path]:
                with open(file, "rb") as content:
                    while part := content.read(1 << 20):
                        found.update(part)
        except OSError:
            return None
        return found.hexdigest()


def _unreadable(path: Path, reason: str) -> BrokenInput:
    return BrokenInput(f"{NO_VIDEO}{path}: {reason}")


def in_numbers(name: str) -> list[Any]:
    """What names are sorted by: 2.jpg comes before 10.jpg."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


# ---------------------------------------------------------------- animated pictures


def animated(path: Path, taken: Sequence[float], reading: Reading) -> list[Image.Image]:
    """Frames at these shares of an animated GIF, WebP, PNG or AVIF; of a still picture, itself."""
    return [picture for _, picture in _in_turn(path, taken, reading)]


def _in_turn(
    path: Path, taken: Sequence[float] | None, reading: Reading
) -> Iterator[tuple[float, Image.Image]]:
    """Frames with their places, one read when asked for. None: all frames."""
    try:
        with Image.open(path) as opened:
            number = getattr(opened, "n_frames", 1)
            for place in places(number, shares(number) if taken is None else taken):
                opened.seek(place)
                yield (place + 0.5) / number, to_rgb(opened, reading.transparency)
            return
    except Image.UnidentifiedImageError:
        reason = "it is not in a picture format that is known here"
    except (OSError, SyntaxError, ValueError, OverflowError, Image.DecompressionBombError) as error:
        reason = str(error)
    raise _unreadable(path, reason) from None


# ---------------------------------------------------------------- videos


def decoded(path: Path, taken: Sequence[float], reading: Reading) -> list[Image.Image]:
    """The frames that are on screen after these shares of a video, each once.

    Raises:
        BrokenInput: it cannot be read, has no pictures, or ends long before it says.
    """
    with _opened(path) as (container, stream, length):
        found = [_picture(frame, reading) for frame in _shown(container, stream, taken, length)]
    if not found:
        raise _unreadable(path, "it has no frames")
    return found


def all_pictures(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """Every frame of a video or animated picture with its place, a share of the clip.

    Raises:
        BrokenInput: it cannot be read.
    """
    if is_picture(path.name):
        yield from _in_turn(path, None, USUAL)
        return
    with _opened(path) as (container, stream, length):
        start = float((stream.start_time or 0) * stream.time_base)
        half = 0.5 / float(stream.average_rate or 1)  # so that it is this frame that is on screen
        for frame in _frames(container, stream):
            yield (frame.time + half - start) / length, frame.to_image()


def length_of(path: Path) -> float:
    """Seconds of a video's pictures.

    Raises:
        BrokenInput: it cannot be read.
    """
    with _opened(path) as (_, _, length):
        return length


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, float]]:
    """A video, its stream of pictures, and how many seconds they last."""
    import av

    try:
        if not os.path.getsize(path):
            raise _unreadable(path, "it is empty")
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _unreadable(path, "it has no pictures, only sound")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # several files are read at a time already
            guessed = container.format.name in GUESSED
            length = None if guessed else _length(stream)
            yield container, stream, length or _counted(path, file_stamp(path))
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(path, reason) from None
    except EOFError as error:
        raise _unreadable(path, str(error)) from None


def _picture(frame: Any, reading: Reading) -> Image.Image:
    picture: Image.Image = frame.to_image()
    turn = round(frame.rotation) if reading.orientation == "apply" else 0
    return picture.rotate(turn, expand=True) if turn else picture


def _length(stream: Any) -> float | None:
    """Seconds of the pictures, if the file says it."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    hours, minutes, seconds = map(float, tag.groups())
    return 3600 * hours + 60 * minutes + seconds


@functools.lru_cache(maxsize=1 << 20)
def _counted(path: Path, stamp: Stamp) -> float:
    """Seconds of the pictures, by the times of all packets, of which none is decoded; kept for the
    process, as long as the file has this stamp."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        spans = [
            (packet.pts, packet.pts + (packet.duration or 0))
            for packet in container.demux(stream)
            if packet.pts is not None
        ]
        if not spans:
            raise EOFError("its frames have no times")
        first, last = min(spans)[0], max(end for _, end in spans)
        return float((last - first) * (stream.time_base or 0))


def _shown(container: Any, stream: Any, taken: Sequence[float], length: float) -> Iterator[Any]:
    """The frame on screen after each share of the length, each once.

    Raises:
        EOFError: the video ends before, by more than a second and a tenth of its length.
    """
    start = float((stream.start_time or 0) * stream.time_base)
    slack = max(1.0, length / 10, 2 / float(stream.average_rate or 2))
    decoder, here, following = _frames(container, stream), None, None
    kept, far = None, math.inf if container.format.name in GUESSED else FAR
    for share in taken:
        time = start + share * length
        if time - (start if following is None else following.time) > far:
            decoder, here, following = _leap(container, stream, time, start), None, None
        while following is None or following.time <= time:
            here = here if following is None else following
            following = next(decoder, None)
            if following is None:
                break
        here = following if here is None else here
        if here is None:
            raise EOFError(f"it has no frames from {time - start:.1f} of {length:.1f} seconds on")
        if following is None and time - here.time > slack:
            raise EOFError(f"it ends after {here.time - start:.1f} of {length:.1f} seconds")
        if here.pts != kept:
            kept = here.pts
            yield here


def _leap(container: Any, stream: Any, time: float, start: float) -> Iterator[Any]:
    """Frames from one on that is shown at a time or before it.

    Forms without an index, such as MPEG's transport streams, are entered anywhere, and give the
    next key frame first: they are entered farther and farther back, at last at the beginning.
    """
    back = 0.0
    while True:
        whole = time - back <= start
        container.seek(0 if whole else int((time - back) / stream.time_base), stream=stream)
        frames = _frames(container, stream)
        first = next(frames, None)
        if whole or (first is not None and first.time <= time):
            return frames if first is None else itertools.chain([first], frames)
        back = max(FAR, 2 * back)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Frames from the present place on, each with its time in seconds."""
    for frame in container.decode(stream):
        if frame.time is None:
            raise EOFError("its frames have no times")
        yield frame
