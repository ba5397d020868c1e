"""What is published of the built-in study, from the numbers that are committed of it.

    python benchmarks/emoji_study.py tables    scores, costs and curves, as in docs/study-tables.md
    python benchmarks/emoji_study.py pictures  the curves in docs/
    python benchmarks/emoji_study.py shift     the picture of a shift in docs/, from two trainings

The numbers in radapter/reporting/emoji_study.json were made by an earlier form of this script,
whose single runs were not kept. `radapter study emoji` is the study as a command, and keeps them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import emoji_shift_table
import numpy as np
import typer

from radapter import merging, training
from radapter import recipe as recipes
from radapter.data import emoji
from radapter.evaluation import alphas
from radapter.evaluation.scores import metric_of
from radapter.evaluation.suite import load_suite, trained_metric
from radapter.reporting import plots, study

DOCS = Path(__file__).parents[1] / "docs"
TABLES = ("emoji", "emoji, fold 0", "emoji, parts and additions", "emoji-retrieval")
METRICS = {
    "accuracy": "Class accuracy",
    "text_to_image_r1": "Caption to picture, R@1",
    "image_to_text_r1": "Picture to caption, R@1",
}
ROLES = ("noto", "unseen", "seen")
COSTS = {
    "trainable": "trained parameters",
    "stored_bytes": "stored bytes",
    "seconds": "seconds",
    "peak_bytes": "peak memory, bytes",
    "start_share": "share of the average's start",
}
REFERENCE = "full"
SHOWN = {"full": ["method={name: full}", "optimisation.lr=3e-5"], "r-adapter": []}
"""Methods in the picture of a shift, with the settings that the study chose"""
Triple = list[float]
"""A value and the ends of its 95 % interval"""
app = typer.Typer(add_completion=False, help=__doc__.split("\n")[0])


@app.command()
def tables() -> None:
    """Print the tables as Markdown."""
    for name in TABLES:
        table = study.table(name)
        print(f"\n## {name}: (fold, seed) {[tuple(run) for run in table['runs']]}\n")
        show(table["methods"])


def show(summary: dict[str, Any]) -> None:
    """Print one of the study's tables as Markdown."""
    print(
        "In %, with 95 % intervals over concepts. The last three columns are the difference from "
        f"`{REFERENCE}`, each at its own alpha."
    )
    for metric, title in METRICS.items():
        columns = [*ROLES, *(f"{role}, diff." for role in ROLES)]
        print(f"\n### {title}\n\n| | alpha | {' | '.join(columns)} |\n|---|---|{'---|' * 6}")
        for name, method in summary.items():
            for key in ("chosen", "at_one"):
                if key not in method:
                    continue
                alpha = "1" if key == "at_one" else f"{np.mean(method['alphas']):.2f}"
                apart = method["difference"] if key == "chosen" else None
                cells = [percent(method[key][metric][role]) for role in ROLES]
                cells += [percent(apart[metric][r], "+") if apart else "" for r in ROLES]
                print(f"| {name} | {alpha} | {' | '.join(cells)} |")
    print(f"\n### Cost\n\n| | {' | '.join(COSTS.values())} |\n|---|{'---|' * len(COSTS)}")
    for name, method in summary.items():
        cells = ["–" if v is None else f"{v:,.3g}" for v in method["cost"].values()]
        print(f"| {name} | {' | '.join(cells)} |")
    compared = list(next(m["above"] for m in summary.values() if m["above"]))
    print(f"\n### Curve over alpha above that of `{REFERENCE}`, at equal score on noto\n")
    print(f"| | {' | '.join(compared)} |\n|---|{'---|' * len(compared)}")
    for name, method in summary.items():
        if method["above"]:
            cells = [percent(method["above"][key], "+") for key in compared]
            print(f"| {name} | {' | '.join(cells)} |")


def percent(triple: Triple | None, sign: str = "") -> str:
    """`12.3 [10.1, 14.5]`"""
    if triple is None:
        return "–"
    value, low, high = (f"{100 * x:{sign}.1f}" for x in triple)
    return f"{value} [{low}, {high}]"


@app.command()
def pictures() -> None:
    """Draw the curves over alpha."""
    for recipe in ("emoji", "emoji-retrieval"):
        trained = trained_metric(recipes.load(recipes.locate(recipe)))
        x = ("in-distribution", trained)
        panels = [("unseen", "accuracy"), ("unseen", "text_to_image_r1")]
        drawn = study.curves(study.table(recipe), x, panels, study.METHODS)
        names = [metric_of(metric).heading for _, metric in (x, *panels)]
        path = DOCS / f"{recipe}-curves.png"
        labels = [f"{name}: unseen styles" for name in names[1:]]
        plots.trade_off(drawn, f"{names[0]}: noto (trained style)", labels, path)
        print(path)


@app.command()
def shift(rows: int = 5) -> None:
    """Draw test concepts of fold 0, chosen by lot, in every style, with three models' answers."""
    suite = load_suite("emoji-shifts").model_copy(update={"tasks": ["classification"]})
    opened = {name: tasks["classification"] for name, tasks in suite.open().items()}
    answers: dict[str, dict[str, Any]] = {}
    for name, overrides in SHOWN.items():
        recipe = recipes.load(recipes.locate("emoji"), overrides)
        with tempfile.TemporaryDirectory() as folder:
            trained = merging.open_trained(training.train(recipe, Path(folder)))
            alpha = 1.0 if name == "full" else alphas.choose_alpha(recipe, trained)["alpha"]
            label = "full" if name == "full" else f"R-Adapter, alpha {alpha:g}"
            for at, found in alphas.alpha_curve(suite, trained, [0.0, alpha]):
                answers["zero-shot" if at == 0 else label] = {
                    name: own.predictions for name, own in found.sets.items()
                }
    first = next(iter(opened.values()))
    drawn = sorted(np.random.default_rng(0).choice(len(first), rows, replace=False).tolist())
    shown = []
    for i in drawn:
        truth = first.class_names[first.labels[i]]
        concept = emoji.concepts()[first.groups[i]]["name"]
        # Every style has the same concepts in the same order.
        assert all(of.groups[i] == first.groups[i] for of in opened.values())
        cells = [
            [
                (first.class_names[k], k == first.labels[i])
                for k in (int(by_style[style][i]) for by_style in answers.values())
            ]
            for style in opened
        ]
        pictures = [of.read(i) for of in opened.values()]
        shown.append(emoji_shift_table.Row(f"{concept}\n({truth})", pictures, cells))
    roles = {dataset.name: dataset.role for dataset in suite.datasets}
    titles = [f"{s}\n({roles[s].replace('in-distribution', 'trained')})" for s in opened]
    path = DOCS / "emoji-shift.png"
    emoji_shift_table.shift_table(shown, titles, list(answers), path)
    print(path)


if __name__ == "__main__":
    app()
