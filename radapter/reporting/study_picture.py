"""The picture of a study: what each method gains where it was trained, and loses elsewhere.

Needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from radapter.errors import UsageError
from radapter.evaluation.scores import metric_of
from radapter.reporting.plots import STYLES, Curve, dots, trade_off
from radapter.reporting.study_tables import column_groups

MOST = 3
"""Panels of a picture"""


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw curves over alpha, from what `study.table.summarise` gives, and write them as PNG; of
    more methods than there are looks of curves a row each.

    The first suite and metric with a data set that was trained on and others is drawn: across is
    that one, and a panel each has the first others of those that the study compares.

    Raises:
        UsageError: no suite has both, or no method was trained.
        MissingDependency: matplotlib is not installed.
    """
    x, panels = _axes(summary)
    methods = [method for method in summary["methods"] if method["kind"] != "zero-shot"]
    if not panels or not methods:
        raise UsageError(
            "There is no picture of this study: it needs a trained method, and a suite with data "
            "that is trained on and other data."
        )
    labels = [_label(summary["columns"][i]) for i in (x, *panels)]
    if len(methods) <= len(STYLES):
        trade_off([_curve(method, x, panels) for method in methods], labels[0], labels[1:], path)
        return
    rows = {
        method["label"]: [_with_interval(method, i) for i in (x, *panels)]
        for method in summary["methods"]
    }
    titles = [label.replace(": ", "\n") for label in labels]
    dots(rows, titles, summary["study"]["baseline"], path)


def _axes(summary: dict[str, Any]) -> tuple[int, list[int]]:
    """Places of columns: across, and in the panels."""
    columns = summary["columns"]
    compared = {
        i
        for method in summary["methods"]
        for i, difference in enumerate(method["differences"] or [])
        if difference["holm"] is not None
    }
    for _, group in column_groups(summary):
        inside = [i for i in group if columns[i]["role"] == "in-distribution"]
        others = [i for i in group if i not in inside]
        if inside and others:
            return inside[0], ([i for i in others if i in compared] or others)[:MOST]
    return 0, []


def _label(column: dict[str, Any]) -> str:
    several = f", mean of {len(column['sets'])}" if len(column["sets"]) > 1 else ""
    return f"{metric_of(column['metric']).heading}: {column['place']}{several}"


def _with_interval(method: dict[str, Any], i: int) -> list[float]:
    own = method["values"][i]
    return [own["mean"], *own["interval"]]


def _curve(method: dict[str, Any], x: int, panels: list[int]) -> Curve:
    points = [point["values"] for point in method["curve"]]
    return Curve(
        method["label"],
        [values[x] for values in points],
        [[values[i] for values in points] for i in panels],
        (_with_interval(method, x), [_with_interval(method, i) for i in panels]),
    )
