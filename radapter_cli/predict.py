"""radapter predict: what is in a picture, or in every picture of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from radapter.data.left_out import LeftOut
    from radapter.inference.prediction import Prediction


def predict(
    pictures: Annotated[
        list[str], typer.Argument(help="Pictures, or folders with all below them.")
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="A file of class names, one a line. Default: the trained classes."),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(
            help="A prompt with {} for the class name, or `openai` for the 80; may be repeated. "
            "Default: the run's, else `a photo of a {}.`"
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Of videos, animated pictures, folders of frames: by N frames."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show of each.")] = 5,
    run: console.RunOption = None,
    model: ModelOption = None,
    runtime: EngineOption = None,
    device: DeviceOption = DeviceChoice.auto,
    precision: PrecisionOption = FP32,
    as_lines: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object a picture, as they come.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Encode the class names anew, and keep nothing.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Name what is in pictures: the likeliest classes with their probabilities among all classes.

    A picture that cannot be read is named on stderr and left out; the exit code is then 4.

    [bold]Examples[/]

        radapter predict photo.jpg
        radapter predict photos/*.jpg --top 1
        radapter predict photos/ --classes names.txt --jsonl
        radapter predict photo.jpg --model bundle/
        radapter predict videos/ --frames 12
    """
    if as_json and as_lines:
        raise UsageError("--json prints one object, --jsonl one a picture: give one of them.")
    if frames and len(pictures) > 1:
        raise UsageError("--frames takes one video, or one folder of videos.")
    from radapter.data.clip_pieces import Pieces, open_clips
    from radapter.data.left_out import merged, summary_of
    from radapter.data.pictures import open_several
    from radapter.data.pixels import without_prefix

    found = open_clips(pictures[0], frames) if frames else open_several(pictures)
    opened = open_chosen(run, model, runtime, device, precision)
    from radapter.evaluation.cache import user_cache
    from radapter.inference import prediction, with_frames

    if isinstance(found, Pieces):
        found = with_frames(opened, found, frames)
    names = None if classes is None else prediction.read_class_names(classes)
    choice = prediction.classes_for(opened, names, templates)
    facts: dict[str, Any] = {
        "model": opened.name,
        "weights_hash": opened.weights_hash,
        "runtime": opened.runtime.name,
        "classes": len(choice["names"]),
    }
    cache = None if no_cache else user_cache()
    predicted = prediction.predict(opened, found, choice, top=top, cache=cache)
    results = _counted(predicted, len(found), as_lines)
    if as_lines:
        failed = 0
        for result in results:
            print(json.dumps(_plain(result)), flush=True)
            failed += result.error is not None
        _say(found.left_out)
        return _leave(failed, len(found))
    done = list(results)
    facts |= {"pictures": [_plain(result) for result in done]}
    broken = without_prefix(result.error for result in done if result.error is not None)
    facts["left_out"] = summary_of(merged(found.left_out, {"broken": broken}))
    _say(found.left_out)
    failed = sum(result.error is not None for result in done)
    if as_json:
        _leave(failed, len(found), facts)
        return console.print_json(facts)
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("picture", overflow="fold")
    table.add_column("%", justify="right")
    table.add_column("class", overflow="fold")
    for result in done:
        for i, (label, share) in enumerate(result.labels):
            name = "" if i else result.picture
            table.add_row(Text(name), f"{100 * share:.1f}", Text(label))
    if failed < len(done):
        console.out.print(table)
    console.note(
        f"{opened.name}, {opened.runtime.name}: probability in % among {facts['classes']} classes."
    )
    return _leave(failed, len(found))


def _counted(results: Iterator[Prediction], total: int, streamed: bool) -> Iterator[Prediction]:
    """The results, with progress (unless they share the terminal) and failures named on stderr."""
    bar = not (streamed and console.out.is_terminal)
    with console.progress("predict" if bar else None) as update:
        for done, result in enumerate(results, 1):
            if result.error:
                console.note(result.error)
            update(done, total, "")
            yield result


def _plain(result: Prediction) -> dict[str, Any]:
    if result.error is not None:
        return {"picture": result.picture, "error": result.error}
    labels = [{"label": label, "probability": share} for label, share in result.labels]
    return {"picture": result.picture, "labels": labels}


def _say(left_out: LeftOut) -> None:
    """Print what was passed over; pictures that cannot be read were named as they came."""
    from radapter.data.left_out import lines_of

    for line in lines_of(left_out):
        console.note(line)


def _leave(failed: int, total: int, details: dict[str, Any] | None = None) -> None:
    """Exit 4 if a picture failed, after everything else was done."""
    if failed:
        raise BrokenInput(f"{failed} of {total} pictures could not be read.", details)
