"""The tables that `radapter eval` prints, from a result as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from radapter.reporting.curves import TITLES
from radapter.reporting.parity_tables import parity_tables
from radapter.reporting.retrieval_tables import retrieval_tables
from radapter.reporting.suite_tables import dataset_tables, tuned_and_engine, with_interval


def evaluation_tables(result: dict[str, Any]) -> Iterator[RenderableType]:
    """A header, a table with a column a model, and the parity of the engines that took part."""
    yield from _scores(result | {"models": _shown(result["models"])})
    yield from parity_tables(result["parity"])


def _shown(models: dict[str, Any]) -> dict[str, Any]:
    """The models that get a column: of engines beside the model in PyTorch, the first alone."""
    tuned, engine = tuned_and_engine(models)
    if tuned is None:
        return models
    labels = list(models)
    return {label: models[label] for label in labels[: labels.index(engine or tuned) + 1]}


def _scores(result: dict[str, Any]) -> Iterator[RenderableType]:
    models = result["models"]
    first = next(iter(models.values()))
    what = f"alpha {result['alpha']:.2f}" if "alpha" in result else result["model"]
    yield Text(f"{result['suite']}, {what}", style="bold")
    if not any("accuracy" in facts for facts in first["datasets"].values()):
        yield from retrieval_tables(result)
        return
    if {"averages", "harmonic_means"} & first.keys() or any(
        facts["partial"] or "template" in facts["protocol"] for facts in first["datasets"].values()
    ):
        yield from dataset_tables(result)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for label in models:
        table.add_column(label, justify="right")
    reference, engine = tuned_and_engine(models)
    if engine:
        table.add_column("diff.", justify="right")
    for metric, title in TITLES.items():
        if metric not in next(iter(first["roles"].values())):
            continue
        chance = 100 * next(iter(first["roles"].values()))[metric]["chance"]
        table.add_row(Text(f"{title} (chance {chance:.1f})", style="italic"))
        for role, facts in first["roles"].items():
            names = facts["datasets"]
            what = names[0] if len(names) == 1 else f"mean of {len(names)}"
            cells = [with_interval(model["roles"][role][metric]) for model in models.values()]
            if engine:
                values = [models[m]["roles"][role][metric]["value"] for m in (engine, reference)]
                cells.append(Text(f"{100 * (values[0] - values[1]):+.2f}"))
            table.add_row(f"  {role}: {what}", *cells)
            if len(names) > 1:
                worst = [model["roles"][role][metric] for model in models.values()]
                which = {item["worst_dataset"] for item in worst}
                label = f"    worst: {which.pop()}" if len(which) == 1 else "    worst"
                cells = [Text(f"{100 * item['worst']:.1f}     ") for item in worst]
                table.add_row(label, *cells, style="dim")
    yield table
    intervals = result["protocol"]["interval"]
    yield Text(
        f"± is half of the interval ({intervals}). "
        f"{f'diff. is {engine} - alpha. ' if engine else ''}"
        f"Retrieval: {result['protocol']['retrieval']}.",
        style="dim",
    )


def alpha_table(result: dict[str, Any]) -> Iterator[RenderableType]:
    """A row for each alpha, a column for each role and metric."""
    yield Text(f"{result['suite']}, over alpha, {result['points'][0]['runtime']}", style="bold")
    roles = result["points"][0]["roles"]
    columns = [(role, metric) for metric in TITLES for role in roles if metric in roles[role]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("alpha", justify="right")
    for role, metric in columns:
        table.add_column(f"{TITLES[metric].removesuffix(', %')}, {role}", justify="right")
    for point in result["points"]:
        cells = [Text(f"{100 * point['roles'][role][m]['value']:.1f}") for role, m in columns]
        mark = " <-" if point["alpha"] == result["chosen"] else ""
        table.add_row(f"{point['alpha']:g}{mark}", *cells)
    yield table
    chosen = result["chosen"]
    yield Text(
        f"In %. {'' if chosen is None else f'<- is the merged model, alpha {chosen:g}. '}"
        f"Shifted data is for looking at: `radapter merge --alpha auto` chooses without it.",
        style="dim",
    )
