"""Clips: class folders of them, and the table that names them; how they are told from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from radapter.data.clip_files import ANIMATED, frames_in, list_clips
from radapter.data.key_frames import MARK
from radapter.data.left_out import some
from radapter.data.listing import list_pictures
from radapter.data.names_file import is_id
from radapter.data.videos import is_video, need_decoder
from radapter.errors import UsageError
from radapter.init.class_words import names_file_for
from radapter.init.folders import lists_of_splits
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import Doubt

SAMPLE = 20  # pictures that are asked whether they move
FRAMES = 12  # CLIP4Clip's
TEMPLATES = ["a video of {}."]
WHY_FRAMES = "one of each of so many equal parts, drawn anew in every epoch"


def holds_clips(folder: Path) -> bool:
    """Whether clips lie below a folder rather than pictures: videos, animated pictures, or frames
    that `radapter data frames` wrote. Other folders of frames may as well be pictures."""
    found = list_pictures(folder)
    videos = sum(map(is_video, found.left_out.get("ending", ())))
    animated = [name for name in found.pictures if name.lower().endswith(ANIMATED)]
    clips = videos + (len(animated) if most_move([folder / name for name in animated]) else 0)
    stills = videos + len(found.pictures) - clips
    return 0 < clips >= stills or _frames_of_ours(folder, found.pictures)


def most_move(paths: list[Path]) -> bool:
    """Whether most of some files have several frames, by a sample of them."""
    sample = paths[:: max(1, len(paths) // SAMPLE)]
    return 2 * sum(is_video(path.name) or frames_in(path) > 1 for path in sample) > len(sample)


def _frames_of_ours(folder: Path, pictures: list[str]) -> bool:
    sample = pictures[:: max(1, len(pictures) // SAMPLE)]
    return 2 * sum(((folder / n).parent / MARK).is_file() for n in sample) > len(sample)


def class_folders_of_clips(spot: Spot, wanted: Wanted) -> Found:
    """CLASS NAME/video.mp4."""
    clips = list_clips(spot.path)
    need_decoder(clips, f"Reading the videos of {spot.path}")
    classes = sorted({name.split("/")[0] for name in clips if "/" in name})
    if len(classes) < 2:
        raise UsageError(_too_few(spot.path, clips, classes))
    lists = lists_of_splits(spot)
    if lists and wanted.split != "none":
        raise Doubt(
            f"{spot.path} has lists called like splits ({', '.join(list(lists)[:5])}) beside class "
            "folders of videos. Write a table with the columns video, label and split instead, "
            "or ignore the lists and take all videos: --split none."
        )
    data = {"source": "videos", "root": spot.written, "task": "classification", "frames": FRAMES}
    found = Found("class folders of videos", data | {"templates": TEMPLATES})
    found.taken["frames"] = WHY_FRAMES
    pictures = [name for name in clips if name.lower().endswith(ANIMATED)]
    still = [name for name in pictures if frames_in(spot.path / name) == 1]
    if still:
        found.notes.append(
            f"clips that are pictures and do not move: {len(still):,} ({some(still)}). Move them "
            "away if they are not meant."
        )
    if all(map(is_id, classes)):
        names_file_for(spot, classes, found)
    return found


def _too_few(place: Path, clips: list[str], classes: list[str]) -> str:
    table = (
        "Captions are read from a table with the columns video and caption: "
        f"radapter init TABLE --pictures {place}"
    )
    if not classes:
        return (
            f"{place} has videos in no class folders: put each into the folder of its class "
            f"({place}/CLASS NAME/video.mp4). {table}"
        )
    inner = place / classes[0]
    if len({name.split("/")[1] for name in clips if name.count("/") > 1}) > 1:
        return f"{place} has videos in 1 folder, which has folders of its own: name {inner}."
    return (
        f"{place} has videos in 1 folder: with one class alone there is nothing to tell apart. "
        f"{table}"
    )


def of_videos(data: dict[str, Any], root: str) -> dict[str, Any]:
    """The data section of a table of videos, from that of a table of pictures."""
    gone = ("source", "root", "path", "task", "image_column", "image_ending", "text_column")
    made = {"source": "videos", "root": root, "path": data["path"], "task": data["task"]}
    made |= {"video_column": data["image_column"], "text_column": data["text_column"]}
    made |= {key: value for key, value in data.items() if key not in gone}
    made["frames"] = FRAMES
    return made | ({"templates": TEMPLATES} if data["task"] == "classification" else {})
