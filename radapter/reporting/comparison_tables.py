"""A comparison of runs on the terminal and as JSON, CSV and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from radapter.evaluation.scores import metric_of
from radapter.reporting.comparison import FACTS, Average, ComparedModel, Comparison, Number
from radapter.reporting.published_rows import published_of, published_tables
from radapter.reporting.table import Column, Table, escaped
from radapter.reporting.terminal import duration

SCHEMA_VERSION = 1
MARKS = {"best": "*", "noise": "~", "": ""}
HEADER = ["#", "run", "method", "base model", "trained on", "alpha", "parameters trained",
          "stored", "training time", "peak memory"]  # fmt: skip
LEGEND = (
    "± is half of the 95 % interval over test items; the spread over training seeds is not in it. "
    "* leads its group by more than the interval of the difference; ~ is the best or not told "
    "from it: within noise."
)
MEANS = (
    "M: the mean of runs that differ in seed alone, or in seed and set. sd is the standard "
    "deviation over seeds (n - 1); over sets, that of each seed's mean. A harmonic mean there is "
    "that of the two means, as CoCoOp and MaPLe have it, not the mean of harmonic means."
)


def tables(comparison: Comparison) -> Iterator[Table]:
    """The runs, then a table for each suite and metric, then published scores."""
    shown = [described(comparison), *(table for _, table in number_tables(comparison))]
    for line in footnotes(comparison):
        shown[-1].note(line)
    yield from shown
    yield from published_tables(comparison)


def described(comparison: Comparison) -> Table:
    """What the models are, and what they cost, a row each."""
    table = Table([Column(name, left=i < 5, wrap="letters") for i, name in enumerate(HEADER)])
    for number, row in comparison.models():
        table.add(*_facts(number, row))
    return table


def number_tables(comparison: Comparison) -> Iterator[tuple[str, Table]]:
    """(metric, table) for each suite and metric."""
    models = comparison.models()
    for suite in comparison.suites():
        keys = comparison.columns(suite)
        for metric in dict.fromkeys(key[2] for key in keys):
            yield metric, _numbers(models, [key for key in keys if key[2] == metric])


def footnotes(comparison: Comparison) -> Iterator[str]:
    """What the marks mean, what is not comparable and why, what is missing."""
    if comparison.suites():
        yield LEGEND
    if comparison.averages:
        yield MEANS
    # One line for one reason, however many roles it holds for.
    roles: dict[tuple[str, str, str], list[str]] = {}
    for (suite, role, group), reason in comparison.reasons.items():
        roles.setdefault((suite, group, reason), []).append(role)
    for (suite, group, reason), names in roles.items():
        yield f"({group}) not comparable with (a), {suite} {', '.join(names)}: {reason}."
    yield from comparison.notes


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain data; shares from 0 to 1."""
    rows = [row.facts | {"numbers": _plain(row)} for row in comparison.rows]
    averages = [
        {
            "average_of": _names(comparison, average),
            "seeds": average.seeds,
            "sets": average.sets,
            **average.facts,
            "numbers": _plain(average),
        }
        for average in comparison.averages
    ]
    not_comparable = [
        {"suite": suite, "role": role, "group": group, "reason": reason}
        for (suite, role, group), reason in comparison.reasons.items()
    ]
    return {
        "runs": rows,
        "averages": averages,
        "not_comparable": not_comparable,
        "published": [
            {"suite": suite.name} | rows.model_dump(mode="json")
            for suite, rows in published_of(comparison)
        ],
        "notes": comparison.notes,
    }


def _plain(row: ComparedModel) -> list[dict[str, Any]]:
    return [
        {
            "suite": suite,
            "role": role,
            "metric": metric,
            "value": number.value,
            "interval": number.interval,
            "deviation": number.deviation,
            "group": number.group or None,
            "mark": number.mark or None,
        }
        for (suite, role, metric), number in row.numbers.items()
    ]


def _names(comparison: Comparison, row: ComparedModel) -> list[str]:
    """Of an average, the runs that it is of; a model of no run is its method, such as zero-shot."""
    rows = [comparison.rows[place].facts for place in (row.of if isinstance(row, Average) else [])]
    return [facts["run"] or facts["method"] for facts in rows]


def to_csv(comparison: Comparison) -> str:
    """A line a model or average; five columns a number: value, low and high end of its interval,
    standard deviation over seeds (of averages), group; shares."""
    keys = [key for suite in comparison.suites() for key in comparison.columns(suite)]
    parts = ("", " low", " high", " deviation", " group")
    names = (" ".join(key) + part for key in keys for part in parts)
    table = Table([Column(name) for name in (*FACTS, "average_of", *names)])
    for _, row in comparison.models():
        cells = [*(row.facts[name] for name in FACTS), " ".join(_names(comparison, row))]
        for key in keys:
            number = row.numbers.get(key)
            low, high = (number.interval if number else None) or ("", "")
            cells += (
                [number.value, low, high, number.deviation, number.group]
                if number
                else [""] * len(parts)
            )
        table.add(*("" if cell is None else str(cell) for cell in cells))
    return table.to_csv()


def to_markdown(comparison: Comparison) -> str:
    """The tables of `tables`, as Markdown."""
    parts = []
    for table in tables(comparison):
        parts += [f"**{escaped(table.title.strip())}**\n"] if table.title else []
        parts += [table.to_markdown(), *(f"{escaped(line.text)}\n" for line in table.notes)]
    return "\n".join(parts)


WRITERS: dict[str, Callable[[Comparison], str]] = {
    ".json": lambda comparison: (
        json.dumps({"schema_version": SCHEMA_VERSION} | to_json(comparison), indent=2) + "\n"
    ),
    ".csv": to_csv,
    ".md": to_markdown,
}


# ---------------------------------------------------------------- cells


def _facts(number: str, row: ComparedModel) -> list[str]:
    facts = row.facts
    alpha, trained, stored = facts["alpha"], facts["trained_parameters"], facts["stored_bytes"]
    seconds, peak = facts["seconds"], facts["peak_memory_bytes"]
    return [
        number,
        facts["run"] or "-",
        facts["method"],
        f"{Path(facts['base_model']).name} ({facts['base_hash'][:8]})",
        facts["data"] or "-",
        "-" if alpha is None else f"{alpha:g}",
        "-" if trained is None else f"{trained:,}",
        "-" if stored is None else size_text(stored),
        "-" if seconds is None else duration(seconds),
        "-" if peak is None else f"{peak / 1e9:.2f} GB, {facts['memory_of']}",
    ]


def size_text(size: float) -> str:
    """Bytes in MB."""
    return f"{size / 1e6:.1f} MB"


def _numbers(
    models: Sequence[tuple[str, ComparedModel]], keys: Sequence[tuple[str, str, str]]
) -> Table:
    """One metric on one suite: a row a model that has it, a column a role."""
    suite, _, metric = keys[0]
    columns = [Column("#"), Column("method", left=True, wrap="letters"), Column("alpha")]
    columns += [Column(role) for _, role, _ in keys]
    table = Table(columns, title=f"\n{suite}: {metric_of(metric).heading}")
    for number, row in models:
        if any(key in row.numbers for key in keys):
            alpha = row.facts["alpha"]
            cells = [_cell(row.numbers.get(key), metric) for key in keys]
            first = [number, row.facts["method"] or "-", "-" if alpha is None else f"{alpha:g}"]
            table.add(*first, *cells)
    return table


def _cell(number: Number | None, metric: str) -> str:
    if number is None:
        return "-"
    own = metric_of(metric)
    text = own.text(number.value)
    if number.interval:
        low, high = number.interval
        text += f" ±{own.text((high - low) / 2)}"
    if number.deviation is not None:
        text += f" sd {own.text(number.deviation)}"
    group = "" if number.group in ("a", "") else f" ({number.group})"
    return text + MARKS[number.mark] + group
