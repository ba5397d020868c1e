"""radapter init: a recipe for one's own pictures or videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from radapter.errors import UsageError
from radapter_cli import console


def init(
    path: Annotated[
        str,
        typer.Argument(
            help="Class folders of pictures or videos, a table of them (CSV, TSV, JSON, Parquet), "
            "pictures with .txt captions, shards, or a caption file (Karpathy, COCO)."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The recipe's name. Default: that of the folder or file.")
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            help="The folder of the pictures or videos that a table or caption file names."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="The split to train on, such as train; "
            "none: take everything, though it looks split.",
        ),
    ] = None,
    task: Annotated[
        Literal["classification", "captions"] | None,
        typer.Option(help="What to train on, where there are both classes and captions."),
    ] = None,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Look at your own pictures or videos and write a commented recipe that trains on them.

    [bold]Examples[/]

        radapter init my-data/
        radapter init captions.csv --pictures photos/
        radapter init videos.csv --pictures videos/
        radapter init coco/dataset_coco.json --name my-coco
    """
    from radapter import recipe as recipes
    from radapter.data.left_out import lines_of
    from radapter.files import write_atomic
    from radapter.init import start
    from radapter.init.text import described, looked_at

    with console.status("looking"):
        made = start(path, name=name, pictures=pictures, split=split, task=task)
    recipes.parse(made.text, f"{made.name}.yaml")  # it is right before it is written
    target = Path(f"{made.name}.yaml")
    if target.exists():
        raise UsageError(f"{target} exists already: move it away, or choose another --name.")
    write_atomic(target, made.text)
    if as_json:
        console.print_json({"recipe": str(target), "found": made.summary})
        return
    console.result(f"{described(made.summary)}.")
    console.result(f"{looked_at(made.summary)}.")
    for message in made.summary["broken"][:5]:
        console.result(f"  {message}")
    for line in lines_of(made.left_out):
        console.result(f"{line[0].upper()}{line[1:]}.")
    for note in made.summary["notes"]:
        console.result(f"Note: {note}")
    console.result(f"Recipe: {target}")
    root = ["--data-root", data_root] if data_root else []
    console.next_command("radapter", "train", target, "--dry-run", *root)
