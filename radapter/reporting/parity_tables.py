"""The table that says whether exported engines give PyTorch's answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from radapter.evaluation.scores import headlines
from radapter.reporting.table import GROUP, Column, Styled, Table, cosine_text


def parity_tables(
    verdicts: Sequence[dict[str, Any]], files: Sequence[dict[str, Any]] = ()
) -> Iterator[Table]:
    """A column for each engine, beside the reference: features, answers, metrics, verdict. Then a
    row for each file that takes bytes or gives probabilities."""
    if not verdicts:
        return
    title = Column(f"parity with {verdicts[0]['reference']}", left=True, wrap="letters")
    table = Table([title, Column(""), *(Column(verdict["label"]) for verdict in verdicts)])
    table.add("worst cosine", "", *(cosine_text(v["cosine"]["worst"]) for v in verdicts))
    table.add("mean cosine", "", *(cosine_text(v["cosine"]["mean"]) for v in verdicts))
    table.add("norm, off by at most", "", *(f"{v['norm']:.0e}" for v in verdicts))
    if verdicts[0]["agreement"] is not None:
        table.add("top-1 agreement", "", *(f"{v['agreement']:.2%}" for v in verdicts))
    for name, metric in headlines().items():  # others: in the JSON, and failures are said
        of_each = [{r["dataset"]: r for r in v["metrics"] if r["metric"] == name} for v in verdicts]
        first = {dataset: row for found in reversed(of_each) for dataset, row in found.items()}
        if first:
            table.add(metric.heading, style=GROUP)
        for dataset, row in first.items():
            # An engine without a file for it has no such metric.
            cells = [_difference(own[dataset]) if dataset in own else "-" for own in of_each]
            table.add(f"  {dataset}", metric.text(row["reference"]), *cells)
    table.add("", "", *map(_word, verdicts))
    tolerances: dict[str, dict[str, float]] = {}
    for verdict in verdicts:
        tolerances.setdefault(verdict["precision"], verdict["tolerance"])
    allowed = "; ".join(
        f"{precision}: worst cosine {tolerance['cosine']:g}, agreement "
        f"{tolerance['agreement']:.1%}, a metric {100 * tolerance['metric']:.1f}"
        for precision, tolerance in tolerances.items()
    )
    table.note(
        "Differences in points, with 95 % intervals (bootstrap over the same items); one whose "
        f"interval contains 0 passes. Allowed: {allowed}."
    )
    for verdict in verdicts:
        if verdict["passed"]:
            continue
        for failure in verdict["failures"]:
            table.note(f"{verdict['label']}: {failure}", "red")
        worst = ", ".join(
            f"{name} ({cosine:.5f})" for name, cosine in verdict["cosine"]["worst_inputs"]
        )
        table.note(f"{verdict['label']}: its worst inputs: {worst}", "red")
    yield table
    if files:
        titles = "file", "worst cosine", "top-1 agreement", "probability, off by at most", ""
        table = Table([Column(title, left=title == "file", wrap="letters") for title in titles])
        for row in files:
            table.add(
                row["file"],
                cosine_text(row["cosine"]),
                f"{row['agreement']:.2%}" if "agreement" in row else "",
                f"{row['difference']:.4f}" if "difference" in row else "",
                _word(row),
            )
            for failure in row["failures"]:
                table.note(f"{row['file']}: {failure}", "red")
        yield table


def _word(row: dict[str, Any]) -> Styled:
    return Styled("passed", "bold green") if row["passed"] else Styled("FAILED", "bold red")


def _difference(row: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in row["interval"])
    difference = f"{100 * row['difference']:+.2f}"
    return difference if low == high else f"{difference} [{low:.1f},{high:.1f}]"
