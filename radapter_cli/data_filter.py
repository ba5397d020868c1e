"""radapter data filter: pairs of pictures or clips and captions, the better ones of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from radapter.errors import BrokenInput, UsageError
from radapter_cli import console
from radapter_cli.model_options import (
    FP32,
    DeviceChoice,
    DeviceOption,
    PrecisionOption,
    open_chosen,
)

SEVERAL = 20
"""Broken items that are named"""


def filter_pairs(
    name: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A recipe of a list with captions.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the lists and the report go.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE", help="What goes, such as 'score<30%' or 'words<4'; may be repeated."
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Captions that were rewritten, JSON lines."),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, metavar="N", help="Pictures that limits are taken from.")
    ] = 10_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge the sample, and write nothing.")
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="The run whose model scores. Default: the recipe's base model.",
            autocompletion=console.complete_run,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME:TAG|FOLDER|BUNDLE", help="The model that scores."),
    ] = None,
    device: DeviceOption = DeviceChoice.auto,
    precision: PrecisionOption = FP32,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Keep the better pairs of a list; exit 4 if more cannot be read than the recipe allows.

    Every caption of the recipe's list is scored with its picture or clip. What is kept is written
    as a list that the recipe reads, what is dropped with the reason, and a report. A rule is a
    measure (score, words, letters, or pictures that have the same caption), < or >, and a number or
    a share of a sample. What cannot be read and exact copies go too.

    [bold]Examples[/]

        radapter data filter my.yaml --dry-run
        radapter data filter my.yaml --out new/ --drop "words<4"
    """
    if name is None or (out is None and not dry_run):
        raise UsageError(
            "Name a recipe and where lists go: radapter data filter RECIPE --out FOLDER"
        )
    if out is not None and out.is_file():
        raise UsageError(f"--out takes a folder, and {out} is a file.")
    from radapter import recipe as recipes
    from radapter.data.pair_rules import parsed

    rules = [parsed(text) for text in drop or []]
    recipe = recipes.load(recipes.locate(name))
    opened = open_chosen(run, model if run or model else recipe.model, None, device, precision)
    from radapter.evaluation.cache import user_cache
    from radapter.inference import filtering

    with console.progress("filter") as update:
        pairs = filtering.judged(
            recipe.data,
            opened,
            rules,
            rewritten=captions,
            sample=sample,
            only_sample=dry_run,
            cache=user_cache(),
            on_progress=lambda done, total: update(done, total, ""),
        )
    facts: dict[str, Any] = {"recipe": name, **pairs.facts}
    if out is not None and not dry_run:
        facts |= filtering.written(pairs, out)
    for message in pairs.broken[:SEVERAL]:
        console.note(f"cannot be read: {message}")
    if not as_json:
        _print(facts, out if not dry_run else None)
    if len(pairs.broken) > recipe.data.broken_images:
        raise BrokenInput(
            f"{len(pairs.broken)} of {facts['pictures']['all']} pictures cannot be read, and "
            f"data.broken_images allows {recipe.data.broken_images}.",
            facts,
        )
    if as_json:
        return console.print_json(facts)
    if out is not None and not dry_run:
        changes = [f"{key}={value}" for key, value in facts["changes"].items()]
        return console.next_command("radapter", "train", name, *changes)
    words = [word for text in drop or [] for word in ("--drop", text)]
    return console.next_command("radapter", "data", "filter", name, "--out", "FOLDER", *words)


def _print(facts: dict[str, Any], out: Path | None) -> None:
    for rule, limit in facts["limits"].items():
        console.note(f"{rule}: the limit is {limit:.4g}")
    for why, of in facts["dropped"].items():
        console.result(f"dropped: {of['count']:,} {why} ({', '.join(of['first'])})")
    if "rewritten" in facts:
        own = facts["rewritten"]
        console.result(f"rewritten: captions of {own['pictures']:,} pictures")
        if own["unknown"]["count"]:
            first = ", ".join(own["unknown"]["first"])
            console.note(f"{own['unknown']['count']:,} names in it are not in the list ({first})")
    if "copies_not_looked_for" in facts:
        console.note(f"copies of pictures: not looked for, {facts['copies_not_looked_for']}")
    pairs, pictures = facts["pairs"], facts["pictures"]
    share = 100 * pairs["kept"] / pairs["all"]
    of_sample = " of the sample" if facts["only_sample"] else ""
    console.result(
        f"Kept: {pairs['kept']:,} of {pairs['all']:,} pairs{of_sample} ({share:.1f} %), of "
        f"{pictures['kept']:,} pictures" + (f" ({out})" if out else "")
    )
