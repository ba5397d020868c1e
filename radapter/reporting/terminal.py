"""Durations in words; curves in braille (two by four dots a character) or plain characters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Points = Sequence[tuple[float, float]]
BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of a braille character, by row and column of the dot"""
BLANK = 0x2800
MARGIN = 8
"""For labels at the left, so that curves under each other have one x axis"""


def duration(seconds: float) -> str:
    """3.2 s, 3 min 20 s, 3 h 5 min or 3 d 18 h."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def short(value: float) -> str:
    """Three digits, as an axis has them: 0.0123, 4.56, 1.2e-05."""
    return f"{value:.3g}"


def curve(
    points: Points,
    *,
    width: int,
    height: int,
    span: tuple[float, float] | None = None,
    label: Callable[[float], str] = short,
    ascii_only: bool = False,
) -> list[str]:
    """A curve with the largest and smallest value at its left and the ends of x below.

    Args:
        points: (x, y), x rising; those that are not finite are left out.
        width: of the lines, in characters, labels included.
        height: of the curve, in lines; two more hold the x axis.
        span: the ends of the x axis; None: those of the points.
        label: how a value of y is written.
        ascii_only: for terminals without braille.

    Returns:
        `height + 2` lines; none if there is no finite point.
    """
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return []
    left, right = span or (points[0][0], points[-1][0])
    low, high = min(y for _, y in points), max(y for _, y in points)
    names = [label(high), *[""] * (height - 2), label(low)] if low < high else [""] * height
    if low == high:  # a flat curve runs through the middle
        names[height // 2] = label(low)
        low, high = low - 1, high + 1
    margin = max(MARGIN, *map(len, names))
    columns = max(1, width - margin - 2)
    across, down = (1, 1) if ascii_only else (2, 4)
    dots = _dots(points, (left, right, low, high), columns * across, height * down)
    corner, side, tick, floor = "+|+-" if ascii_only else "└│┤─"
    lines = []
    for row, name in enumerate(names):
        cells = "".join(_cell(dots, row, column, across, down) for column in range(columns))
        lines.append(f"{name:>{margin}} {tick if name else side}{cells}".rstrip())
    lines.append(" " * (margin + 1) + corner + floor * columns)
    first, last = f"{left:g}", f"{right:g}" if right > left else ""
    lines.append(" " * (margin + 2) + first + last.rjust(columns - len(first)))
    return lines


def _dots(
    points: Points, box: tuple[float, float, float, float], columns: int, rows: int
) -> set[tuple[int, int]]:
    """(row, column) of every dot on the lines from point to point."""
    left, right, low, high = box
    places = [
        (
            (x - left) / ((right - left) or 1) * (columns - 1),
            (high - y) / (high - low) * (rows - 1),
        )
        for x, y in points
    ]
    found = set()
    for (x0, y0), (x1, y1) in zip(places[:1] + places, places, strict=False):
        steps = max(1, math.ceil(max(abs(x1 - x0), abs(y1 - y0))))
        for i in range(steps + 1):
            t = i / steps
            found.add((round(y0 + t * (y1 - y0)), round(x0 + t * (x1 - x0))))
    return found


def _cell(dots: set[tuple[int, int]], row: int, column: int, across: int, down: int) -> str:
    if across == 1:
        return "*" if (row, column) in dots else " "
    code = sum(
        BITS[i][j]
        for i in range(down)
        for j in range(across)
        if (row * down + i, column * across + j) in dots
    )
    return chr(BLANK + code) if code else " "
