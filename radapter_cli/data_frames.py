"""radapter data frames: key frames of videos, in folders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from radapter.errors import BrokenInput, UsageError
from radapter_cli import console


def frames(
    videos: str | None,
    out: Path | None,
    number: int,
    by: Literal["uniform", "change"],
    as_json: bool,
) -> None:
    """Write them and say what was done; exit 4 if a video could not be read."""
    if videos is None or out is None:
        raise UsageError(
            "Name the videos and where frames go: radapter data frames VIDEOS --out FOLDER"
        )
    from radapter.data.key_frames import LIST, Settings, write_key_frames

    start = time.monotonic()
    with console.progress("frames") as update:
        facts = write_key_frames(
            Path(videos),
            out,
            Settings(frames=number, by=by),
            on_progress=lambda done, total: update(done, total, ""),
        )
    for message in facts["broken"]:
        console.note(f"left out: {message}")
    broken, made = len(facts["broken"]), facts["made"]
    if not as_json:
        console.note(f"{made} videos in {console.seconds(time.monotonic() - start)}")
        console.result(f"Frames: {out} ({len(facts['videos'])} videos, listed in {LIST})")
    if broken:
        raise BrokenInput(
            f"{broken} of {broken + len(facts['videos'])} videos could not be read and have no "
            f"frames in {out}.",
            facts,
        )
    if as_json:
        console.print_json(facts)
