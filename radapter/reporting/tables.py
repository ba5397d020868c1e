"""The tables that `radapter eval` prints, from a result as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from radapter.reporting.curves import TITLES
from radapter.reporting.retrieval_tables import retrieval_tables
from radapter.reporting.suite_tables import dataset_tables, with_interval


def evaluation_tables(result: dict[str, Any]) -> Iterator[RenderableType]:
    """A header, a table with a column a model, and the parity verdict if an engine took part."""
    models = result["models"]
    first = next(iter(models.values()))
    what = f"alpha {result['alpha']:.2f}" if "alpha" in result else result["model"]
    yield Text(f"{result['suite']}, {what}", style="bold")
    if not any("accuracy" in facts for facts in first["datasets"].values()):
        yield from retrieval_tables(result)
        if result["parity"]:
            yield parity_text(result["parity"])
        return
    if {"averages", "harmonic_means"} & first.keys() or any(
        facts["partial"] or "template" in facts["protocol"] for facts in first["datasets"].values()
    ):
        yield from dataset_tables(result)
        if result["parity"]:
            yield parity_text(result["parity"])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for label in models:
        table.add_column(label, justify="right")
    reference = next((label for label in models if label.startswith("alpha")), None)
    engine = "onnx" in models and reference is not None
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
                values = [models[m]["roles"][role][metric]["value"] for m in ("onnx", reference)]
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
        f"{'diff. is onnx - alpha. ' if engine else ''}"
        f"Retrieval: {result['protocol']['retrieval']}.",
        style="dim",
    )
    if result["parity"]:
        yield parity_text(result["parity"])


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


def _floor(cosine: float) -> str:
    """Seven digits, rounded down: a cosine that is not 1 must not be printed as 1."""
    return f"{math.floor(cosine * 1e7) / 1e7:.7f}" if math.isfinite(cosine) else f"{cosine}"


def parity_text(parity: dict[str, Any]) -> Text:
    """The verdict on an engine, in a few lines."""
    tolerance = parity["tolerance"]
    largest = max(abs(row["difference"]) for row in parity["metrics"])
    passed = parity["passed"]
    text = Text()
    text.append(
        f"parity of {parity['engine']} ({parity['precision']}) with {parity['reference']}: "
        f"{'passed' if passed else 'FAILED'}\n",
        style="bold green" if passed else "bold red",
    )
    text.append(
        f"  cosine: worst {_floor(parity['cosine']['worst'])}, mean "
        f"{_floor(parity['cosine']['mean'])} (worst allowed {tolerance['cosine']})\n"
    )
    if parity["agreement"] is not None:
        text.append(
            f"  top-1 agreement {parity['agreement']:.2%} (allowed {tolerance['agreement']:.1%})\n"
        )
    text.append(
        f"  largest difference of a metric {100 * largest:.2f} points (allowed "
        f"{100 * tolerance['metric']:.1f} or one item)"
    )
    for failure in parity["failures"]:
        text.append(f"\n  {failure}", style="red")
    return text
