"""A comparison of runs on the terminal and as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from radapter.evaluation.scores import metric_of
from radapter.reporting.comparison import FACTS, Average, Comparison, Number, Row

SCHEMA_VERSION = 1
ABREAST = 7
"""Models beside each other in a table of numbers"""
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


def tables(comparison: Comparison) -> Iterator[RenderableType]:
    """The runs, then a table for each suite, for a terminal."""
    yield _table(HEADER, [_described(*model) for model in comparison.models()])
    for suite in comparison.suites():
        models = comparison.models()
        for first in range(0, len(models), ABREAST):
            chosen = models[first : first + ABREAST]
            yield Text(f"\n{suite}, by the number of the run", style="bold")
            header = ["", *(_heading(number) for number, _ in chosen)]
            yield _table(header, list(_numbers(comparison, suite, chosen)), left=1)
    yield from (Text(line, style="dim") for line in footnotes(comparison))


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
        "notes": comparison.notes,
    }


def _plain(row: Row) -> list[dict[str, Any]]:
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


def _names(comparison: Comparison, row: Row) -> list[str]:
    """Of an average, the runs that it is of; the zero-shot model is `zero-shot`."""
    places = row.of if isinstance(row, Average) else []
    return [comparison.rows[place].facts["run"] or "zero-shot" for place in places]


def to_csv(comparison: Comparison) -> str:
    """A line a model or average; five columns a number: value, low and high end of its interval,
    standard deviation over seeds (of averages), group; shares."""
    keys = [key for suite in comparison.suites() for key in comparison.columns(suite)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("", " low", " high", " deviation", " group")
    names = (" ".join(key) + part for key in keys for part in parts)
    writer.writerow([*FACTS, "average_of", *names])
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
        writer.writerow(cells)
    return stream.getvalue()


def to_markdown(comparison: Comparison) -> str:
    """The tables of `tables`, as Markdown."""
    models = comparison.models()
    described = [_described(*model) for model in models]
    lines = _markdown(HEADER, described, left=5)
    for suite in comparison.suites():
        rows = [
            [f"**{cells[0]}**", *cells[1:]] if not any(cells[1:]) else cells
            for cells in _numbers(comparison, suite, models)
        ]
        header = [suite, *(_heading(number) for number, _ in models)]
        lines += ["", *_markdown(header, rows, left=1)]
    for line in footnotes(comparison):
        lines += ["", _escaped(line)]
    return "\n".join(lines) + "\n"


WRITERS: dict[str, Callable[[Comparison], str]] = {
    ".json": lambda comparison: (
        json.dumps({"schema_version": SCHEMA_VERSION} | to_json(comparison), indent=2) + "\n"
    ),
    ".csv": to_csv,
    ".md": to_markdown,
}


# ---------------------------------------------------------------- cells


def _heading(number: str) -> str:
    return number if number.startswith("M") else f"#{number}"


def _described(number: str, row: Row) -> list[str]:
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
        "-" if stored is None else f"{stored / 1e6:.1f} MB",
        "-" if seconds is None else _time(seconds),
        "-" if peak is None else f"{peak / 1e9:.2f} GB, {facts['memory_of']}",
    ]


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _numbers(
    comparison: Comparison, suite: str, chosen: Sequence[tuple[str, Row]]
) -> Iterator[list[str]]:
    """Rows of a suite's table: a metric's title, then a row a role."""
    title = ""
    for key in comparison.columns(suite):
        if key[2] != title:
            title = key[2]
            yield [metric_of(title).heading, *([""] * len(chosen))]
        yield [f"  {key[1]}", *(_cell(row.numbers.get(key), title) for _, row in chosen)]


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


def _table(header: list[str], rows: list[list[str]], left: int = 5) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row), style="" if any(row[1:]) else "italic")
    return table


def _markdown(header: list[str], rows: list[list[str]], left: int) -> list[str]:
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    cells = [[_escaped(cell.strip()) for cell in row] for row in [header, *rows]]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]


def _escaped(text: str) -> str:
    """Text that Markdown takes as it is; `**` at both ends stays."""
    inner = text[2:-2] if text.startswith("**") and text.endswith("**") and len(text) > 4 else text
    escaped = (
        inner.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("~", "\\~")
    )
    return f"**{escaped}**" if inner is not text else escaped
