"""A report on runs: what they score, what they cost, and what their files say of each number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radapter.evaluation.answers import read_answers
from radapter.evaluation.scores import headlines, main_metrics, metric_of, name_of
from radapter.evaluation.written import of_kind, read_result
from radapter.reporting.averages import add_averages, but_seed
from radapter.reporting.comparison import (
    Comparison,
    Number,
    compare_runs,
    leads,
    method_in_words,
    results_of,
)
from radapter.reporting.comparison_tables import described, footnotes, number_tables
from radapter.reporting.parity_tables import parity_tables
from radapter.reporting.published_rows import published_tables
from radapter.reporting.report.cost import COST, costs
from radapter.reporting.report.figures import (
    Figure,
    Line,
    reliability,
    trade_off,
)
from radapter.reporting.report.gallery import Gallery, Wall
from radapter.reporting.report.over_alpha import mean_line, over_alpha, trained_place
from radapter.reporting.report.over_steps import Curve, curve_title, lines_over
from radapter.reporting.report.page import Folded, Page, Section, Walls
from radapter.reporting.report.strips import Strips, strips
from radapter.reporting.suite_tables import notes
from radapter.reporting.table import Column, Table
from radapter.run import Run

POINTS = 60
"""Of a curve of training at most"""


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed alone, or one run."""

    label: str
    runs: list[Run]
    first: str
    """What the first run alone is called"""


def report_on(runs: Sequence[Run]) -> Page:
    """The page.

    Raises:
        BrokenInput: a run has not finished training, or a file of it is damaged.
    """
    comparison = compare_runs(runs)
    add_averages(comparison)
    groups = grouped(runs, comparison)
    results = {run.name: list(results_of(run)) for run in runs}
    gallery = Gallery()
    sections = [
        Section("short", "In short", _in_short(groups)),
        Section("trade-off", "What is gained, and what it costs elsewhere", _trade_offs(groups)),
        Section("numbers", "Every number, and what may be compared", _numbers(comparison)),
        Section("training", "Training", [_training(groups)]),
        Section("calibration", "Calibration", _calibration(groups, results)),
        Section("cost", "Cost", [_cost(groups, comparison)]),
        Section("parity", "Do exported engines give PyTorch's answers?", _parity(runs, results)),
        Section("pictures", "Pictures whose answer changed", _pictures(groups, gallery)),
        Section("protocol", "What the numbers depend on", _protocol(runs, results)),
    ]
    names = ", ".join(run.name for run in runs)
    title = f"Report on {names}" if len(runs) == 1 else f"Report on {len(runs)} runs"
    lead = "" if len(runs) == 1 else f"Runs: {names}."
    return Page(title, lead, sections, gallery.credits())


def grouped(runs: Sequence[Run], comparison: Comparison) -> list[Group]:
    """Runs that differ in seed alone together, called by their method and their numbers."""
    number = {
        row.facts["run"]: place for place, row in enumerate(comparison.rows, 1) if row.facts["run"]
    }
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(json.dumps(but_seed(run.recipe()), sort_keys=True), []).append(run)
    groups = []
    for own in alike.values():
        places = ", ".join(f"#{number[run.name]}" for run in own)
        more = f", mean of {len(own)} seeds" if len(own) > 1 else ""
        method = method_in_words(own[0].recipe())
        first = f"{method} (#{number[own[0].name]})"
        groups.append(Group(f"{method}{more} ({places})", own, first))
    return groups


def _in_short(groups: Sequence[Group]) -> list[Table | str]:
    """What the merged models gained and lost against zero-shot, by the trained metric: on the
    training distribution, and on means over others."""
    tables: dict[str, Table] = {}
    for group, suite, line in mean_lines(groups):
        at = dict(line.points)
        if line.chosen is None or not {line.chosen, 0.0} <= at.keys() or line.chosen == 0.0:
            continue
        before, after = at[0.0], at[line.chosen]
        x = trained_place(group.runs[0], list(before))
        others = [place for place in before if place[1] == x[1] and place != x]
        means = [place for place in others if "mean of" in place[0]]
        places = [x, *(means or others)]
        columns = [Column("model", left=True), Column("alpha"), *(Column(p[0]) for p in places)]
        title = f"{suite}: {metric_of(x[1]).heading}, from zero-shot to the merged model"
        table = tables.setdefault(title, Table(columns, title=title))
        changes = [_change(before[p], after[p], p[1]) if p in after else "-" for p in places]
        table.add(line.label, f"{line.chosen:g}", *changes)
    if not tables:
        return ["No result has the zero-shot model beside the merged one. Type: radapter eval"]
    return [
        *tables.values(),
        "A change is called noise where it is smaller than the 95 % interval of the difference, "
        "taken as if the two numbers were independent, which is the careful side.",
    ]


def _change(before: Number, after: Number, metric: str) -> str:
    own = metric_of(metric)
    sign = 1 if own.better == "larger" else -1
    one, other = (after, before) if sign * (after.value - before.value) > 0 else (before, after)
    difference = (100 if own.share else 1) * (after.value - before.value)
    more = ""
    if after.deviation is not None:
        more = f", sd {own.text(after.deviation)}"
    elif not leads(one, other, sign):
        more = ", noise"
    return f"{own.text(before.value)} → {own.text(after.value)} ({difference:+.1f}{more})"


def _numbers(comparison: Comparison) -> list[Any]:
    """The tables that `compare` prints; those of metrics that tables of `eval` have no room for
    are folded."""
    found = list(number_tables(comparison))
    shown = [described(comparison), *(table for name, table in found if name in headlines())]
    further = [table for name, table in found if name not in headlines()]
    return [
        *shown,
        *([Folded("Further metrics", further)] if further else []),
        Folded("What the marks mean, and what may not be compared", [*footnotes(comparison)], True),
        *published_tables(comparison),
    ]


# ---------------------------------------------------------------- over alpha


def _trade_offs(groups: Sequence[Group]) -> list[Figure | str]:
    found: list[Figure | str] = []
    by_suite: dict[str, list[Line]] = {}
    for _, suite, line in mean_lines(groups):
        by_suite.setdefault(suite, []).append(line)
    for suite, lines in by_suite.items():
        places = list(dict.fromkeys(p for line in lines for _, own in line.points for p in own))
        x = trained_place(groups[0].runs[0], places)
        for metric in main_metrics().values():
            ys = [place for place in places if place[1] == metric and place[0] != x[0]]
            if ys:
                found.append(trade_off(f"{suite}: {name_of(metric)}", lines, x, ys))
    return found or ["No result has more than one data set. Type: radapter eval --alphas 0:1:0.1"]


def mean_lines(groups: Sequence[Group]) -> Iterator[tuple[Group, str, Line]]:
    """Each group's line on each suite: the mean over its runs that were scored there."""
    for group in groups:
        lines = [over_alpha(run) for run in group.runs]
        for suite in dict.fromkeys(suite for own in lines for suite in own):
            of = [own[suite] for own in lines if suite in own]
            missing = f", {len(of)} of them scored" if len(of) < len(lines) else ""
            yield group, suite, mean_line(group.label + missing, of)


# ---------------------------------------------------------------- the other sections


def _training(groups: Sequence[Group]) -> Figure:
    panels: dict[str, list[Curve]] = {}
    for i, group in enumerate(groups):
        for run in group.runs:
            for what, points in run.curves(POINTS).items():
                name = f"{group.label}: {run.name}" if len(group.runs) > 1 else group.label
                panels.setdefault(curve_title(what), []).append((i, name, points))
    names = [group.label for group in groups]
    note = "Loss, learning rate and validation as they were logged; of long runs, "
    note += f"{POINTS} points each."
    return lines_over("Over the steps of training", "step", panels, names, note)


def _calibration(
    groups: Sequence[Group], results: dict[str, list[dict[str, Any]]]
) -> list[Figure | Table | str]:
    """For each suite the errors as a table, and confidence against accuracy of each first seed."""
    found: list[Figure | Table | str] = []
    suites = dict.fromkeys(r["suite"] for own in results.values() for r in own)
    for suite in suites:
        models: dict[str, dict[str, Any]] = {}
        for group in groups:
            run = group.runs[0]
            for result in (r for r in results[run.name] if r["suite"] == suite):
                for label in of_kind(result, "zero-shot"):
                    models.setdefault("zero-shot", result["models"][label])
                for label in of_kind(result, "tuned"):
                    models.setdefault(f"{group.first}, {label}", result["models"][label])
        having = {
            name: {n: facts["calibration_error"] for n, facts in model["datasets"].items()
                   if "calibration_error" in facts}
            for name, model in models.items()
        }  # fmt: skip
        sets = list(dict.fromkeys(n for own in having.values() for n in own))
        if not sets:
            continue
        table = Table([Column("model", left=True), *map(Column, sets)])
        table.title = f"{suite}: expected calibration error, %"
        for name, errors in having.items():
            cells = [f"{100 * errors[n]['value']:.1f}" if n in errors else "-" for n in sets]
            table.add(name, *cells)
        found.append(table)
        names = list(having)
        curves = {
            n: [(i, name, own[n]["curve"]) for i, (name, own) in enumerate(having.items())
                if "curve" in own.get(n, {})]
            for n in sets
        }  # fmt: skip
        curves = {n: own for n, own in curves.items() if own}
        if curves:
            found.append(reliability(suite, curves, names))
    return found or ["No result of these runs is of classes."]


def _cost(groups: Sequence[Group], comparison: Comparison) -> Figure:
    facts = {row.facts["run"]: row.facts for row in comparison.rows if row.facts["run"]}
    rows = []
    for group in groups:
        own = [facts[run.name] for run in group.runs]
        values = {key: [f[key] for f in own] for key in COST}
        means = {k: None if None in of else float(np.mean(of)) for k, of in values.items()}
        rows.append((group.label, means))
    kinds = {str(f["memory_of"]) for f in facts.values() if f["memory_of"]}
    note = "Time is that of training, on the machine that trained; memory is the peak."
    note += f" Memory is of: {', '.join(sorted(kinds))}." if kinds else ""
    return costs(rows, note)


def _parity(runs: Sequence[Run], results: dict[str, list[dict[str, Any]]]) -> list[Table | str]:
    found: list[Table | str] = []
    for run in runs:
        own = [result for result in results[run.name] if result.get("parity")]
        for result in own:
            for i, table in enumerate(parity_tables(result["parity"])):
                table.title = (
                    "" if i else f"{run.name}, {result['suite']}, alpha {result['alpha']:g}"
                )
                found.append(table)
        if not own:
            found.append(
                f"{run.name}: no engine was scored. Type: radapter export, then radapter eval "
                "--runtime all"
            )
    return found


def _pictures(groups: Sequence[Group], gallery: Gallery) -> list[Any]:
    found: list[Any] = []
    for group in groups:
        run = group.runs[0]
        for path, result in _with_answers(run):
            answers = read_answers(path) or {}
            walls: list[Wall | Strips] = [*gallery.walls(answers), *strips(gallery, answers)]
            if walls:
                labels = f"{answers['before']} and {answers['after']}"
                note = f"Of {len(group.runs)} seeds, the first." if len(group.runs) > 1 else ""
                title = f"{group.first}: {result['suite']}, {labels}"
                found.append(Walls(title, note, walls))
    return found or ["No result says it. Type: radapter eval"]


def _with_answers(run: Run) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The first result of each suite that has answers beside it."""
    seen = set()
    for path in sorted(
        run.evaluations.glob("*.json"), key=lambda path: (len(path.stem), path.stem)
    ):
        result = read_result(path)
        if "models" in result and result["suite"] not in seen and read_answers(path):
            seen.add(result["suite"])
            yield path, result


def _protocol(runs: Sequence[Run], results: dict[str, list[dict[str, Any]]]) -> list[Any]:
    """Every result's notes; those of results that say the same, once."""
    said: dict[str, list[str]] = {}
    for run in runs:
        for result in results[run.name]:
            title = f"{run.name}, {result['suite']}, alpha {result['alpha']:g}"
            said.setdefault(notes(result).text, []).append(title)
    return [Folded("; ".join(titles), text.split("\n")) for text, titles in said.items()]
