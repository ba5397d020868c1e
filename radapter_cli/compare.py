"""radapter compare: several runs in one table; what is not comparable is marked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import UsageError
from radapter_cli import console


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, or their names under ./runs.", autocompletion=console.complete_run
        ),
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.{csv,json,md}", help="Write the comparison too; may be repeated."
        ),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Compare runs: method, base, alpha, size, time, and every number with its interval.

    Numbers of another base model, protocol or test data are marked with the reason and ranked only
    among themselves. A row for each alpha that was evaluated, and the zero-shot model beside them.
    Under runs that differ in seed alone stands their mean with its standard deviation, and under
    runs on several of CoOp's sets, if all have the same seeds, the mean over sets.

    [bold]Examples[/]

        radapter compare runs/*
        radapter compare runs/emoji-* --out comparison.md
    """
    from radapter.files import write_atomic
    from radapter.run import find

    endings = ["csv", "json", "md"]
    for path in out or []:
        if path.suffix[1:] not in endings:
            raise UsageError(f"--out takes names that end in .csv, .json or .md, found '{path}'.")
    found = list({run.path.resolve(): run for run in (find(Path(name)) for name in runs)}.values())
    with console.status("reading"):
        from radapter.reporting import averages, comparison, comparison_tables

        compared = comparison.compare_runs(found)
        averages.add_averages(compared)
    for path in out or []:
        write_atomic(path, comparison_tables.WRITERS[path.suffix](compared))
    if as_json:
        console.print_json(
            comparison_tables.to_json(compared) | {"files": list(map(str, out or []))}
        )
        return
    for part in comparison_tables.tables(compared):
        console.out.print(part)
    for path in out or []:
        console.note(f"Written: {path}")
