"""The table of a study, from its summary (`study.table`): on a terminal, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from radapter.evaluation.scores import metric_of
from radapter.reporting.table import Column, Table, escaped
from radapter.reporting.terminal import duration

ABREAST = 4
"""Places beside each other on a terminal"""
HEADER = ["method", "alpha", "chosen setting", "trained parameters", "stored", "training",
          "peak memory"]  # fmt: skip
NOT_SHOWN, SURVIVES = "~", "*"
MOST_COMPARISONS = 250
"""That Holm's correction lets any survive among: p is 2 / 10,001 at least"""
ABOVE = "above the control, and so many standard errors"
Summary = Mapping[str, Any]


def tables(summary: Summary) -> Iterator[Table]:
    """Methods with their costs, then for each suite and metric the scores and the differences."""
    study = summary["study"]
    first = methods_table(summary)
    first.title = f"{study['name']}: {study['description']}".rstrip(": ")
    shown = [first]
    for title, places in column_groups(summary):
        for start in range(0, len(places), ABREAST):
            part = places[start : start + ABREAST]
            scores, apart = score_table(summary, part), difference_table(summary, part)
            above = control_table(summary, part)
            scores.title = f"\n{title}"
            apart.title = f"\n{title}: difference from {study['baseline']}"
            above.title = f"\n{title}: {ABOVE}"
            shown += [scores, *(table for table in (apart, above) if table.rows)]
    for line in footnotes(summary):
        shown[-1].note(line)
    yield from shown


def to_markdown(summary: Summary) -> str:
    """The tables of `tables`, as Markdown."""
    study = summary["study"]
    parts = [
        f"# {study['name']}\n",
        f"{study['description']}\n",
        methods_table(summary).to_markdown(),
    ]
    for title, places in column_groups(summary):
        parts += [f"## {escaped(title)}\n", score_table(summary, places).to_markdown()]
        apart = difference_table(summary, places)
        if apart.rows:
            parts += [f"Difference from {escaped(study['baseline'])}:\n", apart.to_markdown()]
        above = control_table(summary, places)
        if above.rows:
            parts += [f"{ABOVE.capitalize()}:\n", above.to_markdown()]
    return "\n".join([*filter(str.strip, parts), *(f"{escaped(n)}\n" for n in footnotes(summary))])


def footnotes(summary: Summary) -> Iterator[str]:
    """What the numbers and marks are, and what is missing."""
    runs = max(len(method["runs"]) for method in summary["methods"])
    yield (
        f"Means over {runs} runs that differ in seed, and sd, their standard deviation (n - 1). "
        "Differences are paired, with 95 % intervals that answer for other seeds (by Student's t) "
        "and other test items (by a bootstrap of classes where the data says so, else of items)."
    )
    if summary["comparisons"]:
        shown = [
            d for m in summary["methods"] for d in m["differences"] or () if d["holm"] is not None
        ]
        survive = sum(entry["holm"] for entry in shown)
        found = sum(entry["shown"] for entry in shown)
        yield (
            f"{NOT_SHOWN} no difference shown: the interval holds 0, so neither method is ahead. "
            f"{SURVIVES} survives Holm's correction for the {summary['comparisons']} comparisons "
            f"made. {found} of them show a difference, and {survive} survive. If there were no "
            f"differences, about {0.05 * summary['comparisons']:.1f} would be shown by chance."
        )
        if summary["comparisons"] > MOST_COMPARISONS:
            yield (
                f"Of more than {MOST_COMPARISONS} comparisons none can survive, since p is known "
                "from 10,000 resamples: name those that matter in `compare`."
            )
    yield from summary["notes"]


WRITERS: dict[str, Callable[[Summary], str]] = {
    ".json": lambda summary: json.dumps(summary, indent=1, ensure_ascii=False) + "\n",
    ".md": to_markdown,
}


# ---------------------------------------------------------------- parts


def column_groups(summary: Summary) -> Iterator[tuple[str, list[int]]]:
    """A title for each suite and metric, and the places of its columns."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, column in enumerate(summary["columns"]):
        groups.setdefault((column["suite"], column["metric"]), []).append(place)
    for (suite, metric), places in groups.items():
        yield f"{suite}, {metric_of(metric).heading}", places


def methods_table(summary: Summary) -> Table:
    """What the methods are, and what they cost."""
    table = Table([Column(name, left=i < 3, wrap="letters") for i, name in enumerate(HEADER)])
    for method in summary["methods"]:
        cost = method["cost"]
        trained, stored = cost["trained_parameters"], cost["stored_bytes"]
        seconds, peak = cost["seconds"], cost["peak_memory_bytes"]
        alphas = [run["alpha"] for run in method["runs"]]
        mean = sum(alphas) / len(alphas)
        table.add(
            method["label"],
            f"{mean:.2f} (auto)" if method["rule"] == "auto" else f"{mean:g}",
            ", ".join(method["set"]) or "-",
            "-" if trained is None else f"{trained:,.0f}",
            "-" if stored is None else f"{stored / 1e6:.1f} MB",
            "-" if seconds is None else duration(seconds),
            "-" if peak is None else f"{peak / 1e9:.2f} GB, {cost['memory_of'] or 'mixed'}",
        )
    return table


def _table(summary: Summary, places: Sequence[int]) -> Table:
    columns = [summary["columns"][place] for place in places]
    names = [
        c["place"] + (f" (mean of {len(c['sets'])})" if len(c["sets"]) > 1 else "") for c in columns
    ]
    return Table([Column("method", left=True), *(Column(name) for name in names)])


def score_table(summary: Summary, places: Sequence[int]) -> Table:
    """Means and deviations in some of the columns; below, what takes no look at the pictures."""
    table = _table(summary, places)
    for method in summary["methods"]:
        cells = []
        for place in places:
            metric = metric_of(summary["columns"][place]["metric"])
            own = method["values"][place]
            apart = own["deviation"]
            cells.append(
                metric.text(own["mean"]) + ("" if apart is None else f" sd {metric.text(apart)}")
            )
        table.add(method["label"], *cells)
    for row in summary["trivial"]:
        values = [(metric_of(summary["columns"][p]["metric"]), row["values"][p]) for p in places]
        if any(value is not None for _, value in values):
            cells = ["-" if value is None else metric.text(value) for metric, value in values]
            table.add(row["label"], *cells, style="dim")
    return table


def difference_table(summary: Summary, places: Sequence[int]) -> Table:
    """Differences from the baseline there, with intervals and marks; no rows if there are none."""
    table = _table(summary, places)
    for method in summary["methods"]:
        if method["differences"] is None:
            continue
        cells = []
        for place in places:
            metric = metric_of(summary["columns"][place]["metric"])
            own = method["differences"][place]
            low, high = (_signed(metric.text(end)) for end in own["interval"])
            mark = SURVIVES if own["holm"] else "" if own["shown"] else f" {NOT_SHOWN}"
            cells.append(f"{_signed(metric.text(own['mean']))} [{low}, {high}]{mark}")
        table.add(method["label"], *cells)
    return table


def control_table(summary: Summary, places: Sequence[int]) -> Table:
    """What methods score above the controls that are in some of the columns; no rows if none is."""
    pairs = [
        (n, own["column"], own["control"])
        for n, own in enumerate(summary["methods"][0]["controls"])
        if own["control"] in places
    ]
    names = [summary["columns"][control]["place"] for *_, control in pairs]
    table = Table([Column("method", left=True), *(Column(f"above {name}") for name in names)])
    for method in summary["methods"] if pairs else ():
        cells = []
        for number, column, _ in pairs:
            metric = metric_of(summary["columns"][column]["metric"])
            own = method["controls"][number]
            low, high = (_signed(metric.text(end)) for end in own["interval"])
            errors = f", {own['mean'] / own['error']:.1f} se" if own["error"] else ""
            cells.append(f"{_signed(metric.text(own['mean']))} [{low}, {high}]{errors}")
        table.add(method["label"], *cells)
    return table


def _signed(text: str) -> str:
    """`+0.9`; a value that rounds to 0 has no sign."""
    if float(text) == 0:
        return text.lstrip("-")
    return text if text.startswith("-") else f"+{text}"
