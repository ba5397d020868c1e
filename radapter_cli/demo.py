"""radapter demo: the main job end to end, on the built-in model and pictures."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from radapter_cli import console
from radapter_cli.eval import RuntimeChoice, eval_command
from radapter_cli.export import export
from radapter_cli.merge import merge
from radapter_cli.train import train

ROWS = [
    ("trained task, noto", "in-distribution", "accuracy"),
    ("trained task, unseen styles", "unseen", "accuracy"),
    ("caption to picture, noto", "in-distribution", "text_to_image_r1"),
    ("caption to picture, unseen styles", "unseen", "text_to_image_r1"),
]


def demo(as_json: console.JsonOption = False) -> None:
    """Train, merge, export and evaluate on the built-in model and emoji: two or three minutes.

    Needs no GPU, no network and no data. Leaves its run in ./runs.
    """
    from radapter.run import find

    console.out.quiet = as_json
    start = time.monotonic()
    times: list[tuple[str, float]] = []

    def step(command: str, call: Callable[[], None]) -> None:
        console.err.print(f"\n[bold cyan]$ {command}[/]")
        before = time.monotonic()
        call()
        times.append((command, time.monotonic() - before))

    step("radapter train emoji", lambda: train("emoji"))
    trained = find()
    run = str(trained.path)
    step("radapter merge", lambda: merge(run=run))
    step("radapter export", lambda: export(run=run))
    step("radapter eval --runtime all", lambda: eval_command(run=run, runtime=RuntimeChoice.all))
    step("radapter eval --alphas 0:1:0.25", lambda: eval_command(run=run, alphas="0:1:0.25"))

    (evaluated,) = trained.evaluations.glob("*-alpha-*.json")
    result = json.loads(evaluated.read_text())
    (evaluated,) = trained.evaluations.glob("*-alphas.json")
    curve = json.loads(evaluated.read_text())
    picture = _draw(curve, evaluated.with_name("beside-the-study.png"))
    if as_json:
        times_taken = dict(times)
        console.print_json({"run": run, "seconds": times_taken, "result": result, "curve": curve})
        return
    console.out.print(study_table(curve))
    worst = result["parity"]["cosine"]["worst"]
    console.result(f"The engine agrees with PyTorch: worst cosine 1 - {max(0.0, 1 - worst):.0e}.")
    if picture:
        console.result(f"This run's curve over alpha beside the study's: {picture}")
    console.result("\nThe commands in sequence:")
    for command, duration in [*times, ("in all", time.monotonic() - start)]:
        console.result(f"  {console.seconds(duration):>12}  {command}")
    console.result(f"The plain checkpoint and the bundle to deploy are in {run}.")
    console.next_command("radapter recipes copy own-data   (the same on your own pictures)")


def study_table(curve: dict[str, Any]) -> Table:
    """What this run gained and lost, beside the means of the study that comes with radapter."""
    from radapter.reporting import curves

    study = curves.study()
    alpha = curve["chosen"]
    own = {point["alpha"]: point["roles"] for point in curve["points"]}
    published = {
        name: {point["alpha"]: point for point in study["methods"][name]["curve"]}
        for name in ("r-adapter", "full")
    }
    folds = len({fold for fold, _ in study["runs"]})
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = (
        f"This run (fold 0, seed 0), and the study's means (runs: {len(study['runs'])}, "
        f"folds: {folds}), in %"
    )
    table.add_column("")
    for column in (
        "this run:\nzero-shot",
        f"this run:\nalpha {alpha:g}",
        "study:\nzero-shot",
        f"study:\nalpha {alpha:g}",
        "study: full\nfine-tuning",
    ):
        table.add_column(column, justify="right")
    for title, role, metric in ROWS:
        theirs = curves.STUDY_ROLES[role]
        values = [
            own[0.0][role][metric]["value"],
            own[alpha][role][metric]["value"],
            published["r-adapter"][0.0][metric][theirs],
            published["r-adapter"][alpha][metric][theirs],
            published["full"][1.0][metric][theirs],
        ]
        table.add_row(title, *(f"{100 * value:.1f}" for value in values))
    return table


def _draw(curve: dict[str, Any], path: Path) -> Path | None:
    """This run's curve over alpha beside the study's; None without matplotlib."""
    if not importlib.util.find_spec("matplotlib"):
        return None
    from radapter.reporting import curves, plots

    x, panels = curves.axes(curve)
    drawn = [
        *curves.study_curves(curves.study(), x, panels, curves.STUDY_METHODS),
        curves.curve(curve, "R-Adapter, this run (fold 0, seed 0)"),
    ]
    labels = [curves.axis_label(axis, curve) for axis in (x, *panels)]
    plots.trade_off(drawn, labels[0], labels[1:], path)
    return path
