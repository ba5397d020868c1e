"""radapter data frames: key frames of videos, in folders."""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import BrokenInput, UsageError
from radapter_cli import console


class ByChoice(enum.StrEnum):
    uniform = "uniform"
    change = "change"


def frames(
    videos: Annotated[Path | None, typer.Argument(help="A folder of videos.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the folders of frames go.")
    ] = None,
    number: Annotated[
        int, typer.Option("--frames", min=1, metavar="N", help="How many of each video.")
    ] = 12,
    by: Annotated[
        ByChoice,
        typer.Option(
            help="Of segments of equal length, or in which the picture changes equally much."
        ),
    ] = ByChoice.uniform,
    as_json: console.JsonOption = False,
) -> None:
    """Write a few pictures of each video; exit 4 if a video could not be read.

    They go into a folder under the video's name, which is read many times faster than the video.
    Typed again, it goes on, and does what has changed.

    [bold]Examples[/]

        radapter data frames videos/ --out frames/
        radapter data frames videos/ --out frames/ --by change
    """
    if videos is None or out is None:
        raise UsageError(
            "Name the videos and where frames go: radapter data frames VIDEOS --out FOLDER"
        )
    from radapter.data.key_frames import LIST, Settings, write_key_frames

    start = time.monotonic()
    with console.progress("frames") as update:
        facts = write_key_frames(
            videos,
            out,
            Settings(frames=number, by=by.value),
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
