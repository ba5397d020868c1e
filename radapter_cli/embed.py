"""radapter embed: features of many pictures, in a file to search."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import BrokenInput, UsageError
from radapter_cli import console
from radapter_cli.model_options import (
    FP32,
    DeviceChoice,
    DeviceOption,
    EngineOption,
    ModelOption,
    PrecisionOption,
    open_chosen,
)


def embed(
    pictures: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|TABLE", help="A folder with all below it, or a CSV or TSV of paths."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The features file to write, a safetensors file.")],
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Instead, of the folder's videos, animated pictures and "
            "folders of frames: a feature each, by N frames. Default with --window: as many as a "
            "model of clips takes, else 12.",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="With videos: a feature for every piece of about so many seconds.",
        ),
    ] = None,
    image_column: Annotated[str, typer.Option(help="A table's column of paths.")] = "filepath",
    run: console.RunOption = None,
    model: ModelOption = None,
    runtime: EngineOption = None,
    device: DeviceOption = DeviceChoice.auto,
    precision: PrecisionOption = FP32,
    as_json: console.JsonOption = False,
) -> None:
    """Write unit-norm features of pictures, or of videos (--frames, --window), with their names.

    A command that was stopped goes on when it is typed again. Typed again after pictures were added
    or changed, it encodes only those.
    A picture that cannot be read is named on stderr and left out; the file is written and the exit
    code is 4.

    [bold]Examples[/]

        radapter embed photos/ --out photos.safetensors
        radapter embed table.csv --out table.safetensors
        radapter embed videos/ --window 10 --out v.safetensors
    """
    if out.is_dir():
        raise UsageError(f"--out takes a file to write, and {out} is a folder.")
    from radapter.data.clip_pieces import FRAMES, Pieces, open_clips
    from radapter.data.left_out import lines_of_summary
    from radapter.data.pictures import Pictures, open_pictures

    found: Pictures | Pieces
    if frames is None and window is None:
        found = open_pictures(pictures, image_column)
    else:
        found = open_clips(pictures, frames or FRAMES, window)
    opened = open_chosen(run, model, runtime, device, precision)
    from radapter import inference

    if isinstance(found, Pieces):
        found = inference.with_frames(opened, found, frames)
    existed = out.stat().st_mtime_ns if out.exists() else None
    start = time.monotonic()
    before: list[int] = []
    try:
        with console.progress("embed") as update:

            def report(done: int, total: int) -> None:
                before.append(done) if not before else None
                update(done, total, "")

            facts, messages = inference.embed(opened, found, out, on_progress=report)
    except KeyboardInterrupt:
        console.note(f"The parts that are done are kept in {out}.parts; the same command goes on.")
        raise
    written = out.stat().st_mtime_ns != existed
    for message in messages:
        console.note(f"left out: {message}")
    count, skipped = facts["count"], facts["skipped"]
    passed_over = facts.get("left_out", {})  # files of older versions do not say it
    for line in lines_of_summary({k: v for k, v in passed_over.items() if k != "broken"}):
        console.note(line)
    content = {"features": str(out), "written": written, "facts": facts}
    content |= {"left_out": passed_over, "unreadable": messages}
    if not as_json:
        if written:
            seconds = time.monotonic() - start
            new = len(found) - before[0] - facts["kept"]
            kept = f", {facts['kept']} kept from before" if facts["kept"] else ""
            rate = f", {new / seconds:.1f}/s" if new > 0 else ""
            console.note(f"{new} pictures in {console.seconds(seconds)}{rate}{kept}")
        console.result(
            f"{'Features' if written else 'Up to date'}: {out} ({count} pictures, {facts['dim']} "
            f"dimensions, {out.stat().st_size / 1e6:.1f} MB)"
        )
    if skipped:
        raise BrokenInput(
            f"{skipped} of {len(found)} pictures could not be read and are not in {out}.", content
        )
    if as_json:
        console.print_json(content)
        return
    which = ["--run", run] if run else ["--model", model] if model else []
    console.next_command("radapter", "search", "a red bicycle", "--in", out, *which)
