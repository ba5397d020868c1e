"""radapter demo: the main job end to end, on the built-in model and pictures."""

from __future__ import annotations

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

ROLES = {"in-distribution": "noto", "unseen": "unseen styles", "seen": "seen styles"}


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
    step("radapter eval --runtime all", lambda: eval_command(run=run, runtime=RuntimeChoice("all")))
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
    worst = result["parity"][0]["cosine"]["worst"]
    console.result(f"The engine agrees with PyTorch: worst cosine 1 - {max(0.0, 1 - worst):.0e}.")
    console.result(
        f"This run's curve over alpha beside the study's: {picture}"
        if picture
        else 'No picture without matplotlib: pip install "radapter[plot]"'
    )
    console.result("\nThe commands in sequence:")
    for command, duration in [*times, ("in all", time.monotonic() - start)]:
        console.result(f"  {console.seconds(duration):>12}  {command}")
    console.result(f"The plain checkpoint and the bundle to deploy are in {run}.")
    console.next_command(
        "radapter", "recipes", "copy", "own-data", why="the same on your own pictures"
    )


def study_table(curve: dict[str, Any]) -> Table:
    """What this run gained and lost, beside the means of the study that comes with radapter."""
    from radapter.evaluation.scores import main_metrics, name_of
    from radapter.reporting import study

    built_in = study.table()
    alpha = curve["chosen"]
    own = {point["alpha"]: point["roles"] for point in curve["points"]}
    published = {
        (name, point["alpha"]): point
        for name, method in built_in["methods"].items()
        for point in method["curve"]
    }
    columns = [
        ("zero-shot\nthis run", own[0.0], None),
        (f"alpha {alpha:g}\nthis run", own.get(alpha), None),
        ("zero-shot\nstudy", None, published["r-adapter", 0.0]),
        (f"alpha {alpha:g}\nstudy", None, published.get(("r-adapter", alpha))),
        ("full, alpha 1\nstudy", None, published["full", 1.0]),
    ]
    columns = [column for column in columns if column[1] or column[2]]
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    folds = len({fold for fold, _ in built_in["runs"]})
    table.title = (
        f"In %: this run (fold 0, seed 0), and the means of the built-in study over {folds} folds, "
        "of which this one is the first"
    )
    table.add_column("")
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    scored = [metric for metric in main_metrics().values() if metric in own[0.0]["unseen"]]
    for metric in scored:
        for role, words in ROLES.items():
            cells = [
                ours[role][metric]["value"] if ours else theirs[metric][study.ROLES[role]]
                for _, ours, theirs in columns
            ]
            trained = " (trained)" if (metric, role) == ("accuracy", "in-distribution") else ""
            title = f"{name_of(metric).removesuffix(' R@1')}, {words}{trained}"
            table.add_row(title, *(f"{100 * value:.1f}" for value in cells))
    return table


def _draw(curve: dict[str, Any], path: Path) -> Path | None:
    """This run's curve over alpha beside the study's; None without matplotlib."""
    from radapter.reporting import curves, study

    beside = study.curves(study.table(), *curves.axes(curve), study.METHODS)
    return curves.draw(curve, "R-Adapter, this run (fold 0, seed 0)", path, beside)
