"""The table of a suite of retrieval alone: what papers report of it, data set by data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from radapter.evaluation.tasks.retrieval import METRICS, RECALLS, WAYS
from radapter.reporting.suite_tables import is_off, notes, tuned_and_engine, with_interval


def retrieval_tables(result: dict[str, Any]) -> Iterator[RenderableType]:
    """For each data set, way and model recalls at 1, 5 and 10 and the median rank, then the sum of
    the six recalls; under a model whose numbers are published these and how far it is from them.
    After that, what the numbers depend on."""
    models = result["models"]
    first = next(iter(models.values()))
    tuned, engine = tuned_and_engine(models)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("in %", no_wrap=True)
    for title in (*(f"R@{k}" for k in RECALLS), "median"):
        table.add_column(title, justify="right")
    for name, facts in first["datasets"].items():
        part = " (partial)" if facts["partial"] else ""
        table.add_row(Text(f"{facts['role']}: {name}{part}", style="italic"))
        counts = f"{facts['pictures']:,} pictures, {facts['captions']:,} captions"
        table.add_row(Text(f"  {counts}", style="dim"))
        for way, title in reversed(WAYS.items()):
            table.add_row(f"  {title}")
            metrics = [f"{way}_r{k}" for k in RECALLS]
            for label, model in models.items():
                own = model["datasets"][name]
                recalls = [with_interval(own[metric], METRICS[metric]) for metric in metrics]
                rank = own["retrieval"][f"{way}_median_rank"]
                table.add_row(f"    {label}", *recalls, f"{rank:g}")
                for row in _published(model.get("anchors", {}).get(name, {}), metrics):
                    table.add_row(*row)
            if tuned and engine:
                values = [[models[m]["datasets"][name][metric]["value"] for metric in metrics]
                          for m in (engine, tuned)]  # fmt: skip
                cells = [f"{100 * (a - b):+.2f}" for a, b in zip(*values, strict=True)]
                table.add_row(f"    {engine} - alpha", *cells)
        table.add_row("  sum of the six")
        for label, model in models.items():
            total = model["datasets"][name]["retrieval"]["recall_sum"]
            table.add_row(f"    {label}", f"{total:.1f}     ")
    yield table
    yield notes(result)


def _published(anchors: dict[str, Any], metrics: list[str]) -> Iterator[list[str | Text]]:
    """The rows under a model; none without published numbers."""
    found = [anchors.get(metric) for metric in metrics]
    if not any(found):
        return
    yield ["      published", *(Text(f"{100 * a['published']:.2f}" if a else "") for a in found)]
    yield [
        "      difference",
        *(
            Text(f"{100 * a['difference']:+.2f}", style="bold red" if is_off(a) else "")
            if a
            else Text()
            for a in found
        ),
    ]
