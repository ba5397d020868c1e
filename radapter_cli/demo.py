"""radapter demo: the main job end to end, on the built-in model and pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from radapter_cli import console
from radapter_cli.eval import RuntimeChoice, eval_command
from radapter_cli.export import export
from radapter_cli.merge import merge
from radapter_cli.train import train

RECIPE = "icons-demo"
ROWS = {
    "line": "line icons, which it is trained on",
    "solid": "solid icons",
    "two-tone": "two-tone icons",
    "colour": "colour icons",
    "pixel": "pixel icons",
    "novel": "line icons of novel classes",
    "noto": "emoji",
}
"""Data sets of the suite, and what the table calls them"""
ALPHAS = "0:1:0.5"


def demo(
    as_json: console.JsonOption = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what each command prints.")
    ] = False,
) -> None:
    """Train, merge, export and evaluate on the built-in model and icons: two or three minutes.

    Needs no GPU, no network and no data. Leaves its run in ./runs.
    """
    from radapter.run import find

    start = time.monotonic()
    times: list[tuple[str, float]] = []

    def step(command: str, call: Callable[[], None]) -> None:
        console.err.print(f"[bold cyan]$ {command}[/]")
        before = time.monotonic()
        with console.details(notes=verbose, results=verbose and not as_json):
            call()
        times.append((command, time.monotonic() - before))

    step(f"radapter train {RECIPE}", lambda: train(RECIPE))
    trained = find()
    run = str(trained.path)
    step("radapter merge", lambda: merge(run=run))
    step("radapter export", lambda: export(run=run))
    step("radapter eval --runtime all", lambda: eval_command(run=run, runtime=RuntimeChoice("all")))
    step(f"radapter eval --alphas {ALPHAS}", lambda: eval_command(run=run, alphas=ALPHAS))

    (evaluated,) = trained.evaluations.glob("*-alpha-*.json")
    result = json.loads(evaluated.read_text())
    (evaluated,) = trained.evaluations.glob("*-alphas.json")
    curve = json.loads(evaluated.read_text())
    if as_json:
        times_taken = dict(times)
        console.print_json({"run": run, "seconds": times_taken, "result": result, "curve": curve})
        return
    console.out.print()
    console.out.print(closing_table(curve))
    worst = min(verdict["cosine"]["worst"] for verdict in result["parity"])
    console.result(
        f"\nThe exported engine agrees with PyTorch: worst cosine 1 - {max(0.0, 1 - worst):.0e}."
    )
    took = ", ".join(
        f"{command.split()[1]} {console.seconds(duration)}" for command, duration in times
    )
    console.result(f"It took {console.seconds(time.monotonic() - start)}: {took}.")
    console.result(f"The plain checkpoint, the bundle to deploy and all results are in {run}.")
    console.next_command("radapter", "report", "--open", why="this run on one page")
    console.next_command("radapter", "init", "FOLDER", why="the same on your own pictures")


def closing_table(curve: dict[str, Any]) -> Table:
    """Zero-shot, tuned and merged: the accuracy on each data set, and its size."""
    merged = curve["chosen"]
    columns = {0.0: "zero-shot", 1.0: "tuned,\nalpha 1", merged: f"merged,\nalpha {merged:g}"}
    points = {point["alpha"]: point["datasets"] for point in curve["points"]}
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = "Accuracy in %, on pictures by designers that neither base nor tuning saw"
    table.add_column("")
    table.add_column("pictures", justify="right")
    for title in columns.values():
        table.add_column(title, justify="right")
    for name, words in ROWS.items():
        cells = [f"{100 * points[alpha][name]['accuracy']['value']:.1f}" for alpha in columns]
        table.add_row(words, f"{points[0.0][name]['pictures']:,}", *cells)
    return table
