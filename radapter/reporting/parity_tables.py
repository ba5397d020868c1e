"""The table that says whether exported engines give PyTorch's answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from radapter.evaluation.scores import headlines


def parity_tables(
    verdicts: Sequence[dict[str, Any]], files: Sequence[dict[str, Any]] = ()
) -> Iterator[RenderableType]:
    """A column for each engine, beside the reference: features, answers, metrics, verdict. Then a
    row for each file that takes bytes or gives probabilities."""
    if not verdicts:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"parity with {verdicts[0]['reference']}", overflow="fold")
    table.add_column("", justify="right")
    for verdict in verdicts:
        table.add_column(verdict["label"], justify="right")
    table.add_row("worst cosine", "", *(_floor(v["cosine"]["worst"]) for v in verdicts))
    table.add_row("mean cosine", "", *(_floor(v["cosine"]["mean"]) for v in verdicts))
    table.add_row("norm, off by at most", "", *(f"{v['norm']:.0e}" for v in verdicts))
    if verdicts[0]["agreement"] is not None:
        table.add_row("top-1 agreement", "", *(f"{v['agreement']:.2%}" for v in verdicts))
    for name, metric in headlines().items():  # others: in the JSON, and failures are said
        found = zip(*(verdict["metrics"] for verdict in verdicts), strict=True)
        chosen = [rows for rows in found if rows[0]["metric"] == name]
        if chosen:
            table.add_row(Text(metric.heading, style="italic"))
        for rows in chosen:
            reference = metric.text(rows[0]["reference"])
            table.add_row(f"  {rows[0]['dataset']}", reference, *map(_difference, rows))
    table.add_row("", "", *map(_word, verdicts))
    yield table
    yield Text(
        "Differences in points, with 95 % intervals (bootstrap over the same items); one that "
        "holds 0 does not fail. Allowed: "
        + "; ".join(_allowed(precision, verdicts) for precision in _precisions(verdicts))
        + ".",
        style="dim",
    )
    for verdict in verdicts:
        if verdict["passed"]:
            continue
        for failure in verdict["failures"]:
            yield Text(f"{verdict['label']}: {failure}", style="red")
        worst = ", ".join(f"{name} ({cosine:.5f})" for name, cosine in _worst(verdict))
        yield Text(f"{verdict['label']}: its worst inputs: {worst}", style="red")
    if files:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("file", "worst cosine", "top-1 agreement", "probability, off by at most", ""):
            table.add_column(title, justify="left" if title == "file" else "right", overflow="fold")
        for row in files:
            table.add_row(
                row["file"],
                _floor(row["cosine"]),
                f"{row['agreement']:.2%}" if "agreement" in row else "",
                f"{row['difference']:.4f}" if "difference" in row else "",
                _word(row),
            )
        yield table
        for row in files:
            for failure in row["failures"]:
                yield Text(f"{row['file']}: {failure}", style="red")


def _word(row: dict[str, Any]) -> Text:
    return Text("passed", "bold green") if row["passed"] else Text("FAILED", "bold red")


def _worst(verdict: dict[str, Any]) -> list[tuple[str, float]]:
    return [(name, cosine) for name, cosine in verdict["cosine"]["worst_inputs"]]


def _precisions(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(verdict["precision"] for verdict in verdicts))


def _allowed(precision: str, verdicts: Sequence[dict[str, Any]]) -> str:
    tolerance = next(v["tolerance"] for v in verdicts if v["precision"] == precision)
    return (
        f"{precision}: worst cosine {tolerance['cosine']:g}, agreement "
        f"{tolerance['agreement']:.1%}, a metric "
        f"{100 * tolerance['metric']:.1f}"
    )


def _difference(row: dict[str, Any]) -> Text:
    low, high = (100 * bound for bound in row["interval"])
    difference = f"{100 * row['difference']:+.2f}"
    return Text(difference) if low == high else Text(f"{difference} [{low:.1f},{high:.1f}]")


def _floor(cosine: float) -> str:
    """Seven digits, rounded down: a cosine that is not 1 must not be printed as 1."""
    return f"{math.floor(cosine * 1e7) / 1e7:.7f}" if math.isfinite(cosine) else f"{cosine}"
