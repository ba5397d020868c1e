"""Key frames: folders of a few pictures in the place of videos, which are read many times faster.

A folder FOLDER/NAME/ with 000.jpg, 001.jpg ... for each video, under the video's name without its
ending, so that lists of videos need no change. Each is written under a temporary name and renamed;
`.radapter.json` in it says of which file and with which settings it was made, so that the command
goes on where it was stopped, and does again what has changed. `frames.json` lists all of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from radapter.data.clip_files import bare, list_clips
from radapter.data.clips import shares
from radapter.data.pixels import USUAL, is_picture
from radapter.data.stores import file_stamp
from radapter.data.videos import all_pictures, animated, decoded, need_decoder
from radapter.errors import BrokenInput
from radapter.files import clear_temporary, new_folder, write_atomic
from radapter.processors import decoders

By = Literal["uniform", "change"]
MARK, LIST = ".radapter.json", "frames.json"
SIDE = 16
"""Frames are compared at 16 x 16 pixels"""


@dataclass(frozen=True)
class Settings:
    """How frames are chosen and written."""

    frames: int = 12
    """Of each video; of a shorter one all"""
    by: By = "uniform"
    """`uniform`: from the middles of segments of equal length. `change`: of segments in which the
    picture changes equally much, so that still parts give few frames"""
    side: int = 256
    """Pixels of the shorter side; smaller ones stay"""
    quality: int = 90
    """Of JPEG"""


def write_key_frames(
    videos: Path,
    out: Path,
    settings: Settings,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the key frames of all videos below a folder.

    Several are read at a time; memory holds the frames of so many clips.

    Returns:
        What `frames.json` says: `settings`, `videos` (by name, the number of frames) and `broken`,
        messages about videos that could not be read; and `made`, how many were written now.

    Raises:
        BrokenInput: there is no such folder, or no video in it can be read.
    """
    if not videos.is_dir():
        raise BrokenInput(f"No such folder: {videos}.")
    names = [name for name in list_clips(videos) if not (videos / name).is_dir()]
    if not names:
        raise BrokenInput(f"No videos in {videos} or below it.")
    twice = [key for key, number in Counter(map(bare, names)).items() if number > 1]
    if twice:
        raise BrokenInput(
            f"{videos} has several videos called {min(twice)}, whose frames would lie in one "
            "folder: rename them."
        )
    need_decoder(names, "radapter data frames")
    out.mkdir(parents=True, exist_ok=True)
    clear_temporary(out)
    found: dict[str, int] = {}
    broken, made = [], 0
    with ThreadPoolExecutor(decoders()) as pool:
        results = pool.map(lambda name: _one(videos / name, out / bare(name), settings), names)
        for done, (name, result) in enumerate(zip(names, results, strict=True), 1):
            if isinstance(result, str):
                broken.append(result)
            else:
                found[name], new = result
                made += new
            on_progress(done, len(names))
    if not found:
        raise BrokenInput(f"None of the {len(names)} videos in {videos} can be read: {broken[0]}")
    facts = {"settings": asdict(settings), "videos": found, "broken": broken}
    write_atomic(out / LIST, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return facts | {"made": made}


def _one(path: Path, folder: Path, settings: Settings) -> tuple[int, bool] | str:
    """How many frames a video has now, and whether they were written now; or why there are none."""
    facts = {"stamp": file_stamp(path)[:2], **asdict(settings)}
    mark = json.dumps(facts)
    try:
        if (folder / MARK).read_text() == mark:
            return sum(map(is_picture, (p.name for p in folder.iterdir()))), False
    except (OSError, ValueError):
        pass
    try:
        pictures = _chosen(path, settings)
    except BrokenInput as error:
        return str(error)
    with new_folder(folder) as temporary:
        for number, picture in enumerate(pictures):
            _smaller(picture, settings.side).save(
                temporary / f"{number:03}.jpg", quality=settings.quality
            )
        (temporary / MARK).write_text(mark)
    return len(pictures), True


def _chosen(path: Path, settings: Settings) -> list[Image.Image]:
    taken = shares(settings.frames)
    if settings.by == "change":
        taken = by_change(all_pictures(path), settings.frames)
    if is_picture(path.name):
        return animated(path, taken, USUAL)
    return decoded(path, taken, USUAL)


def by_change(pictures: Iterator[tuple[float, Image.Image]], frames: int) -> list[float]:
    """Where the middles of segments lie in which the picture changes equally much.

    Change is the mean absolute difference of grey levels from one frame to the next, at 16 x 16
    pixels. Where nothing changes, segments are of equal length.

    Args:
        pictures: every frame with its place, a share of the clip from 0 to 1.
    """
    places, changes = [], []
    before: Any = None
    for place, picture in pictures:
        small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        levels = np.asarray(small, dtype=np.float64)
        places.append(place)
        changes.append(0.0 if before is None else float(np.abs(levels - before).mean()))
        before = levels
    total = np.cumsum(changes)
    if not places or not total[-1]:
        return shares(frames)
    wanted = np.array(shares(frames)) * total[-1]
    return [float(place) for place in np.array(places)[np.searchsorted(total, wanted)]]


def _smaller(picture: Image.Image, side: int) -> Image.Image:
    scale = side / min(picture.size)
    if scale >= 1:
        return picture
    size = max(side, round(picture.width * scale)), max(side, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
