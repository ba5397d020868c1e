"""Pictures: how alpha trades one score against another; many methods side by side.

Needs matplotlib (the extra `plot`). Curves differ in dashes and markers as well as in colour, and
the colours are Okabe and Ito's, so both grey prints and colour-blind eyes can tell them apart.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radapter.errors import not_installed
from radapter.files import write_atomic

STYLES = [
    ("#000000", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#0072B2", "^", "-."),
    ("#009E73", "D", ":"),
    ("#CC79A7", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#E69F00", "P", (0, (1, 1))),
]
DPI = 150


@dataclass(frozen=True)
class Curve:
    """One method over alpha. Scores are shares from 0 to 1."""

    label: str
    x: list[float]
    """By alpha, which rises from 0, the zero-shot model"""
    ys: list[list[float]]
    """For each panel, by alpha"""
    chosen: tuple[list[float], list[list[float]]] | None = None
    """At the chosen alpha: [value, low, high] of x and, for each panel, of y"""


def trade_off(curves: Sequence[Curve], x: str, panels: Sequence[str], path: Path) -> None:
    """Draw curves over alpha, a panel for each of `panels`, and write them to `path`, a PNG.

    `x` and `panels` are axis labels. The chosen alpha of a curve is a filled marker with its 95 %
    intervals.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    plt = pyplot_to_file()
    size = (0.6 + 4.2 * len(panels), 4.9)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharex=True)
    for number, (panel, axis) in enumerate(zip(panels, axes[0], strict=True)):
        for curve, (colour, marker, dashes) in zip(curves, itertools.cycle(STYLES), strict=False):
            xs, ys = _percent(curve.x), _percent(curve.ys[number])
            axis.plot(
                xs,
                ys,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=4,
                markerfacecolor="white",
                linewidth=1.4,
                label=curve.label,
            )
            if curve.chosen:
                (cx, *ex), (cy, *ey) = map(_percent, (curve.chosen[0], curve.chosen[1][number]))
                axis.errorbar(
                    cx,
                    cy,
                    xerr=[[cx - ex[0]], [ex[1] - cx]],
                    yerr=[[cy - ey[0]], [ey[1] - cy]],
                    color=colour,
                    marker=marker,
                    markersize=9,
                    elinewidth=0.7,
                    alpha=0.9,
                    zorder=3,
                )
        # Curves of one set of data start at one point.
        for zero in {(100 * curve.x[0], 100 * curve.ys[number][0]) for curve in curves}:
            axis.plot(*zero, marker="*", markersize=15, color="black", linestyle="", zorder=4)
            axis.annotate(
                "zero-shot",
                zero,
                xytext=(-8, 9),
                textcoords="offset points",
                fontsize=9,
                ha="right",
            )
        axis.set_xlabel(x)
        axis.set_title(panel, fontsize=10)
        axis.grid(color="0.9", linewidth=0.6)
        axis.margins(x=0.12, y=0.08)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="lower center",
        ncols=min(3, len(curves)),
        frameon=False,
        fontsize=9,
    )
    rows = -(-len(curves) // 3)
    figure.tight_layout(rect=(0, 0.02 + 0.05 * rows, 1, 1))
    write(figure, path)


def dots(
    rows: Mapping[str, Sequence[Sequence[float]]], panels: Sequence[str], baseline: str, path: Path
) -> None:
    """Draw a row for each of many methods and write the picture to `path`, a PNG: curves of so many
    could not be told apart.

    Args:
        rows: by label, for each panel a mean and both ends of its 95 % interval, shares.
        panels: their titles, with the unit.
        baseline: the row whose means are lines through all others.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    plt = pyplot_to_file()
    size = (1.8 + 2.6 * len(panels), 1.1 + 0.27 * len(rows))
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True)
    places = range(len(rows), 0, -1)  # the first stands on top
    for number, (panel, axis) in enumerate(zip(panels, axes[0], strict=True)):
        for place, (label, values) in zip(places, rows.items(), strict=True):
            mean, low, high = _percent(values[number])
            axis.plot([low, high], [place, place], color="0.45", linewidth=1.4)
            face = "black" if label == baseline else "white"
            axis.plot(mean, place, "o", color="black", markerfacecolor=face, markersize=5)
        if baseline in rows:
            mean = 100 * rows[baseline][number][0]
            axis.axvline(mean, color="0.45", linewidth=0.8, linestyle=":", zorder=0)
        axis.set_title(panel, fontsize=9)
        axis.grid(color="0.9", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(list(places), list(rows), fontsize=9)
    figure.tight_layout()
    write(figure, path)


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def pyplot_to_file() -> Any:
    """matplotlib's pyplot, which opens no window.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise not_installed("A picture of curves", "matplotlib", "plot") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def write(figure: Any, path: Path) -> None:
    """Write a figure as PNG and close it."""
    content = io.BytesIO()
    # Without matplotlib's version in it: equal numbers give equal files.
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    pyplot_to_file().close(figure)
    write_atomic(path, content.getvalue())
