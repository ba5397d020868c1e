"""Figures over the steps of training, or another one axis."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from radapter.evaluation.scores import name_of
from radapter.reporting.report.figures import Figure, Panel, layout, style
from radapter.reporting.table import Column, Table

Curve = tuple[int, str, Sequence[Sequence[float]]]
"""The number of its style, its name, and its points: (x, value), or (x, value, lowest, highest),
whose range is drawn as a band"""


def lines_over(
    title: str,
    x: str,
    panels: dict[str, list[Curve]],
    names: list[str],
    note: str,
    text: Callable[[float], str] = lambda value: f"{value:.4g}",
) -> Figure:
    """Curves over one x axis, such as steps.

    Args:
        panels: by what is drawn, its curves.
    """
    found = []
    table = Table(
        [Column("line", left=True), Column("what", left=True), Column(x), Column("value")]
    )
    for what, curves in panels.items():
        traces, said = [], []
        for number, name, points in curves:
            for at, value, *ends in points:
                range_of = f" ({text(ends[0])} to {text(ends[1])})" if ends else ""
                table.add(name, what, f"{at:g}", text(value) + range_of)
            if len(points[0]) > 2:
                traces.append(_band(number, points))
            hover = f"<b>{html.escape(name)}</b><br>{x} %{{x}}: %{{y:.4g}}<extra></extra>"
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            shown = style(number)
            shown["marker"]["maxdisplayed"] = 8
            traces.append(
                {"x": xs, "y": ys, "mode": "lines+markers", "hovertemplate": hover} | shown
            )
            said.append(f"{name}: from {text(ys[0])} to {text(ys[-1])}")
        alt = f"{what} over {x}. {'; '.join(said)}."
        found.append(Panel(what, alt, traces, layout(x, what)))
    return Figure(title, note, found, table, names)


def _band(number: int, points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The area between the lowest and the highest values, around the line of a number."""
    xs, _, lows, highs = (list(column) for column in zip(*points, strict=True))
    return {
        "x": xs + xs[::-1],
        "y": highs + lows[::-1],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": f"{style(number)['line']['color']}26",
        "hoverinfo": "skip",
    }


def curve_title(name: str) -> str:
    """What a curve of `Run.curves` is of, in words."""
    if name.startswith("validation "):
        return f"validation, {name_of(name.split()[1])}, %"
    return {"lr": "learning rate"}.get(name, name)


def median_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, ...]]:
    """(step, median, lowest, highest) of curves of (step, value), at the steps of the shortest that
    all of them reach; of one curve its points. Curves of other steps are interpolated there."""
    if len(curves) == 1:
        return [(step, value) for step, value in curves[0]]
    steps = min(curves, key=lambda points: points[-1][0])
    first = max(points[0][0] for points in curves)
    xs = [step for step, _ in steps if step >= first]
    ys = np.array([np.interp(xs, [p[0] for p in own], [p[1] for p in own]) for own in curves])
    columns = np.median(ys, axis=0), ys.min(axis=0), ys.max(axis=0)
    return [(x, *map(float, own)) for x, *own in zip(xs, *columns, strict=True)]
