"""Figures of a report as data: what plotly.js draws, with a text alternative and a table for each.

Lines differ in markers and dashes as well as in colour, and the colours are Okabe and Ito's, so
both grey prints and colour-blind eyes can tell them apart. Text and grid get their colours from the
page's style sheet, which knows light and dark.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from radapter.evaluation.scores import metric_of
from radapter.reporting.comparison import Number
from radapter.reporting.table import Column, Table

STYLES = [
    ("#0072B2", "circle", "solid"),
    ("#D55E00", "square", "dash"),
    ("#009E73", "triangle-up", "dashdot"),
    ("#CC79A7", "diamond", "dot"),
    ("#767676", "triangle-down", "longdash"),
    ("#B37700", "cross", "longdashdot"),
]
WIDTH, HEIGHT = 344, 290
"""Of a panel, in CSS pixels: one across a phone, two across a page of A4"""
Place = tuple[str, str]
"""What a score is of, such as a data set, and its metric"""


@dataclass(frozen=True)
class Panel:
    """One picture: what plotly.js draws, and what it shows in words."""

    title: str
    alt: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """Pictures beside each other, with one legend and one table of all that they show."""

    title: str
    note: str
    panels: list[Panel]
    table: Table
    names: list[str] = field(default_factory=list)
    """The legend, in the order of STYLES"""

    def legend(self) -> Panel | None:
        """The names with their lines and markers, drawn as the panels are."""
        if not self.names:
            return None
        traces = [
            {"x": [None], "y": [None], "name": html.escape(name), "mode": "lines+markers"}
            | style(i)
            for i, name in enumerate(self.names)
        ]
        hidden = {"visible": False, "fixedrange": True}
        layout = {
            "width": WIDTH,
            "height": 24 * len(traces) + 8,
            "margin": {"l": 0, "r": 0, "t": 4, "b": 4},
            "xaxis": hidden,
            "yaxis": hidden,
            "showlegend": True,
            "legend": {"x": 0, "y": 1, "itemclick": False, "itemdoubleclick": False},
        }
        words = "; ".join(f"{name}: {words_of(i)}" for i, name in enumerate(self.names))
        return Panel("Legend", f"Legend. {words}.", traces, layout)


@dataclass(frozen=True)
class Line:
    """What one method scores over alpha, or at one alpha alone."""

    label: str
    points: list[tuple[float, dict[Place, Number]]]
    """Alpha, and the scores there"""
    chosen: float | None = None
    """The alpha of the merged model"""
    merged: tuple[str, dict[Place, Number]] | None = None
    """What a study says of the method: of which alpha, and the scores; it may lie off the curve, as
    each run has its own alpha"""


def style(number: int) -> dict[str, Any]:
    """The look of the line of a number."""
    colour, symbol, dash = _look(number)
    line = {"color": colour, "dash": dash, "width": 2}
    return {"line": line, "marker": {"symbol": symbol, "color": colour, "size": 8}}


def words_of(number: int) -> str:
    """The same in words."""
    _, symbol, dash = _look(number)
    return f"{symbol.replace('-', ' ')} on a {dash} line"


def _look(number: int) -> tuple[str, str, str]:
    """Of more lines than there are styles, the dashes move on by one."""
    colour, symbol, _ = STYLES[number % len(STYLES)]
    return colour, symbol, STYLES[(number + number // len(STYLES)) % len(STYLES)][2]


# ---------------------------------------------------------------- trade-offs


def trade_off(title: str, lines: Sequence[Line], x: Place, ys: Sequence[Place]) -> Figure:
    """One score against others, a curve over alpha for each line; 95 % intervals on hover."""
    panels = []
    for y in ys:
        traces, said = [], []
        for number, line in enumerate(lines):
            points = [(a, v[x], v[y]) for a, v in line.points if x in v and y in v]
            if line.merged and {x, y} <= line.merged[1].keys():
                look = style(number)
                look["marker"]["size"] = 12
                of, values = line.merged
                own = [(of, values[x], values[y])]
                traces.append(_curve(line, own, (x, y), look["line"]["color"], of) | look)
            if points:
                look = _marked(number, [a for a, *_ in points], line.chosen)
                traces.append(
                    _curve(line, points, (x, y), look["line"]["color"], line.chosen) | look
                )
                ends = [points[0], points[-1]] if len(points) > 1 else points
                said.append(
                    f"{line.label}: "
                    + " to ".join(
                        f"({_in(x, a)}, {_in(y, b)}) at alpha {at:g}" for at, a, b in ends
                    )
                )
        if traces:
            alt = f"{_axis(y)}, against {_axis(x)}. {'; '.join(said)}."
            panels.append(Panel(y[0], alt, traces, layout(_axis(x), metric_of(y[1]).heading)))
    table = Table(
        [Column("line", left=True), Column("alpha"), *(Column(_axis(p)) for p in (x, *ys))]
    )
    for line in lines:
        for alpha, values in line.points:
            mark = " (merged)" if alpha == line.chosen else ""
            cells = [number_text(values.get(place), place[1]) for place in (x, *ys)]
            table.add(line.label, f"{alpha:g}{mark}", *cells)
        if line.merged:
            of, values = line.merged
            cells = [number_text(values.get(place), place[1]) for place in (x, *ys)]
            table.add(line.label, of, *cells)
    note = (
        "A line starts at the star, the zero-shot model (alpha 0), and runs to alpha 1, the tuned "
        "model as it is; what was scored at one alpha alone has no line. The filled marker is the "
        "merged model, with its interval. Further right is better on what was trained, higher is "
        "better on the other."
    )
    return Figure(title, note, panels, table, [line.label for line in lines])


def _curve(
    line: Line,
    points: Sequence[tuple[float | str, Number, Number]],
    places: tuple[Place, Place],
    colour: str,
    chosen: float | str | None,
) -> dict[str, Any]:
    """Points with what is said of them on hover; the chosen one with its intervals."""
    texts = [
        f"<b>{html.escape(line.label)}</b><br>"
        + (alpha if isinstance(alpha, str) else f"alpha {alpha:g}")
        + "".join(
            f"<br>{html.escape(place[0])}: {number_text(number, place[1])}"
            for place, number in zip(places, numbers, strict=True)
        )
        for alpha, *numbers in points
    ]
    trace: dict[str, Any] = {
        "x": [_scaled(number, places[0]) for _, number, _ in points],
        "y": [_scaled(number, places[1]) for _, _, number in points],
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
        "mode": "lines+markers" if len(points) > 1 else "markers",
    }
    columns = [number for _, number, _ in points], [number for *_, number in points]
    at_chosen = [alpha == chosen for alpha, *_ in points]
    for axis, place, own in zip("xy", places, columns, strict=True):
        ends = [
            _ends(number, place) if shown else (0.0, 0.0)
            for number, shown in zip(own, at_chosen, strict=True)
        ]
        trace[f"error_{axis}"] = {
            "type": "data",
            "symmetric": False,
            "array": [up for _, up in ends],
            "arrayminus": [down for down, _ in ends],
            "color": f"{colour}66",
            "thickness": 1,
            "width": 0,
        }
    return trace


def _marked(number: int, alphas: list[float], chosen: float | None) -> dict[str, Any]:
    """A line with a star at alpha 0 and a filled marker at the chosen alpha."""
    own = style(number)
    symbol = own["marker"]["symbol"]
    own["marker"]["symbol"] = [
        "star" if alpha == 0 else symbol if alpha == chosen else f"{symbol}-open"
        for alpha in alphas
    ]
    own["marker"]["size"] = [12 if alpha in (0, chosen) else 7 for alpha in alphas]
    return own


def _ends(number: Number, place: Place) -> tuple[float, float]:
    """How far the interval, or the deviation, reaches below and above."""
    scale = 100 if metric_of(place[1]).share else 1
    if number.interval:
        low, high = number.interval
        return scale * (number.value - low), scale * (high - number.value)
    return (scale * (number.deviation or 0.0),) * 2


def _scaled(number: Number, place: Place) -> float:
    return number.value * (100 if metric_of(place[1]).share else 1)


def _in(place: Place, number: Number) -> str:
    return metric_of(place[1]).text(number.value)


def _axis(place: Place) -> str:
    return f"{place[0]}: {metric_of(place[1]).heading}"


def number_text(number: Number | None, metric: str) -> str:
    """A value with its 95 % interval and its deviation over seeds, as far as there are any."""
    if number is None:
        return "-"
    own = metric_of(metric)
    text = own.text(number.value)
    if number.interval:
        text += f" [{own.text(number.interval[0])}, {own.text(number.interval[1])}]"
    return text + (f" sd {own.text(number.deviation)}" if number.deviation is not None else "")


# ---------------------------------------------------------------- other figures


def reliability(
    suite: str, curves: dict[str, list[tuple[int, str, list[Sequence[float]]]]], names: list[str]
) -> Figure:
    """Accuracy against confidence, a panel for each data set.

    Args:
        curves: by data set, (number of the style, name, [items, confidence, accuracy] of each bin).
    """
    panels = []
    titles = "line", "data set", "confidence, %", "accuracy, %", "pictures"
    table = Table([Column(name, left=i < 2) for i, name in enumerate(titles)])
    for dataset, own in curves.items():
        even = {"x": [0, 100], "y": [0, 100], "mode": "lines", "hoverinfo": "skip"}
        traces: list[dict[str, Any]] = [even | {"line": {"color": "#888888", "width": 1}}]
        said = []
        for number, name, bins in own:
            for items, sure, right in bins:
                table.add(name, dataset, f"{100 * sure:.1f}", f"{100 * right:.1f}", f"{items:,}")
            hover = (
                f"<b>{html.escape(name)}</b><br>confidence %{{x:.1f}} %<br>accuracy %{{y:.1f}} %"
                "<br>%{text}<extra></extra>"
            )
            traces.append(
                {
                    "x": [100 * sure for _, sure, _ in bins],
                    "y": [100 * right for *_, right in bins],
                    "text": [f"{items:,} pictures" for items, *_ in bins],
                    "mode": "lines+markers",
                    "hovertemplate": hover,
                }
                | style(number)
            )
            total = sum(items for items, *_ in bins)
            error = sum(items * abs(right - sure) for items, sure, right in bins) / total
            said.append(f"{name}: expected calibration error {100 * error:.1f} %")
        alt = f"{dataset}: accuracy against confidence. {'; '.join(said)}."
        shape = layout("confidence, %", "accuracy, %")
        panels.append(Panel(dataset, alt, traces, shape))
    note = (
        "On the thin diagonal, confidence is accuracy. Below it the model is surer than it is "
        "right. Bins are of equal width; those with few pictures are noise."
    )
    return Figure(f"Calibration on {suite}", note, panels, table, names)


def bars(
    title: str, note: str, columns: Sequence[str], rows: Sequence[tuple[str, list[Any]]]
) -> Figure:
    """A panel of horizontal bars for each column, a bar a row.

    Args:
        rows: name, and for each column (value, its text) or None.
    """
    table = Table([Column("", left=True), *map(Column, columns)])
    for name, cells in rows:
        table.add(name, *(cell[1] if cell else "-" for cell in cells))
    panels = []
    for i, column in enumerate(columns):
        known = [(name, *cells[i]) for name, cells in reversed(rows) if cells[i]]
        if not known:
            continue
        names, values, texts = zip(*known, strict=True)
        trace = {
            "type": "bar",
            "orientation": "h",
            "x": values,
            "y": [html.escape(name) for name in names],
            "text": texts,
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": "%{y}: %{text}<extra></extra>",
            "marker": {"color": "#0072B2"},
        }
        shape = layout("", "")
        shape["margin"]["l"] = 120
        bare = {"showgrid": False, "ticks": ""}
        room = 2.2 * max(values) or 1.0  # for the texts behind the bars
        shape["xaxis"] |= bare | {"range": [0, room], "showticklabels": False}
        shape["yaxis"] |= bare | {"type": "category", "automargin": True}
        shape |= {"height": 26 * len(known) + 16, "bargap": 0.3}
        shape["margin"] |= {"t": 4, "b": 4}
        said = [f"{name}: {cells[i][1]}" for name, cells in rows if cells[i]]
        alt = f"{column}. {'; '.join(said)}."
        panels.append(Panel(column, alt, [trace], shape))
    return Figure(title, note, panels, table)


def layout(x: str, y: str) -> dict[str, Any]:
    """Axes with their names; nothing is dragged, so that a finger scrolls the page."""
    axis = {"fixedrange": True, "zeroline": False, "nticks": 6, "exponentformat": "e"}
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "margin": {"l": 52, "r": 12, "t": 8, "b": 44},
        "xaxis": axis | {"title": {"text": html.escape(x), "standoff": 6}},
        "yaxis": axis | {"title": {"text": html.escape(y), "standoff": 6}},
        "showlegend": False,
    }
