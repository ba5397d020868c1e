"""A report on a study, from the JSON that it leaves: see `radapter.study.results`."""

from __future__ import annotations

from typing import Any

from radapter.evaluation.scores import metric_of
from radapter.reporting.comparison import Number
from radapter.reporting.report.cost import COST, costs
from radapter.reporting.report.figures import Figure, Line, Place, trade_off
from radapter.reporting.report.over_steps import Curve, curve_title, lines_over, median_curve
from radapter.reporting.report.page import Folded, Page, Section
from radapter.reporting.study_tables import (
    ABOVE,
    column_groups,
    control_table,
    difference_table,
    footnotes,
    methods_table,
    score_table,
)
from radapter.reporting.table import Column, Table
from radapter.study.results import Folder

OWN_ALPHA = "each run at its own alpha"
RUNS = (
    "The parity of engines and the pictures whose answer changed are not among the results of a "
    "study. Type radapter export, radapter eval and radapter report for one of its runs in "
    "runs/studies."
)
NO_CURVES = (
    "The results have no curves of training: nothing was logged, or an earlier version of radapter "
    "wrote them. radapter report RUN has those of a run in runs/studies."
)


def report_on_study(folder: Folder, summary: dict[str, Any]) -> Page:
    """The page, of the results of a study and what `study.table.summarise` makes of them.

    Raises:
        BrokenInput: results are missing or damaged.
    """
    study = summary["study"]
    scores = []
    for title, places in column_groups(summary):
        scores.append(score_table(summary, places))
        scores[-1].title = title
        above = control_table(summary, places)
        above.title = f"{title}: {ABOVE}"
        scores += [above] if above.rows else []
    sections = [
        Section("short", f"Beside {study['baseline']}", _differences(summary)),
        Section("trade-off", "What is gained, and what it costs elsewhere", _trade_offs(summary)),
        Section("numbers", "Every number", scores),
        Section("training", "Training", [_training(folder, summary)]),
        Section("calibration", "Calibration", _calibration(folder, summary)),
        Section(
            "cost", "What was run, and its cost", [methods_table(summary), _cost(summary), RUNS]
        ),
        Section("protocol", "What the numbers depend on", _protocol(folder, summary)),
    ]
    return Page(f"Study: {study['name']}", study["description"], sections)


def _differences(summary: dict[str, Any]) -> list[Table | str]:
    """What each method is above or below the baseline, and what the marks mean."""
    found: list[Table | str] = []
    for title, places in column_groups(summary):
        table = difference_table(summary, places)
        if table.rows:
            table.title = f"{title}: difference from {summary['study']['baseline']}"
            found.append(table)
    return [*found, *footnotes(summary)]


def _trade_offs(summary: dict[str, Any]) -> list[Figure | str]:
    """One curve over alpha for each method, with the merged models' mean."""
    columns = summary["columns"]
    places = [_place(column) for column in columns]
    lines = []
    for method in summary["methods"]:
        if method["kind"] == "zero-shot":  # where the other curves begin
            continue
        points = [
            (
                float(p["alpha"]),
                dict(zip(places, (Number(v, None) for v in p["values"]), strict=True)),
            )
            for p in method["curve"]
        ]
        values = [
            Number(own["mean"], tuple(own["interval"]), deviation=own["deviation"])
            for own in method["values"]
        ]
        of = OWN_ALPHA if method["rule"] == "auto" else f"alpha {method['rule']:g}"
        merged = of, dict(zip(places, values, strict=True))
        lines.append(Line(method["label"], points, merged=merged))
    found: list[Figure | str] = []
    for title, group in column_groups(summary):
        inside = [i for i in group if columns[i]["role"] == "in-distribution"] or group[:1]
        ys = [places[i] for i in group if i not in inside]
        if ys and lines:
            found.append(trade_off(title, lines, places[inside[0]], ys))
    return found or ["No suite of the study has more than one data set."]


def _place(column: dict[str, Any]) -> Place:
    """What a column is of, in words, and its metric."""
    name, role, sets = column["place"], column["role"], column["sets"]
    several = f", mean of {len(sets)}" if len(sets) > 1 else ""
    return name + several + (f" ({role})" if role and role != name else ""), column["metric"]


def _training(folder: Folder, summary: dict[str, Any]) -> Figure | str:
    """Loss and validation of the finalists over steps: of each method the median over its runs,
    with their range."""
    panels: dict[str, list[Curve]] = {}
    methods = [method for method in summary["methods"] if method["kind"] != "zero-shot"]
    for number, method in enumerate(methods):  # as in the figures over alpha
        runs = dict.fromkeys(run["run"] for run in method["runs"])
        results = [result for result in map(folder.read_run, runs) if result]
        logged = [result["curves"] for result in results if result.get("curves")]
        for what in logged[0] if logged else ():
            points = median_curve([curves[what] for curves in logged if what in curves])
            if points:
                panels.setdefault(curve_title(what), []).append((number, method["label"], points))
    if not panels:
        return NO_CURVES
    note = (
        "The line is the median over the runs of a method, the band reaches from the lowest to the "
        "highest, as far as all of them were trained. Losses can be compared between methods of "
        "the same objective alone. Soups, and runs that a rule merges, have no curve of their own."
    )
    names = [method["label"] for method in methods]
    return lines_over("Over the steps of training", "step", panels, names, note)


def _calibration(folder: Folder, summary: dict[str, Any]) -> list[Table | str]:
    """The mean over runs of the expected calibration error, each at its own alpha."""
    tables: dict[str, Table] = {}
    for method in summary["methods"]:
        errors: dict[str, dict[str, list[float]]] = {}
        for run in method["runs"]:
            result = folder.read_run(run["run"])
            for suite, own in (result["suites"] if result else {}).items():
                at = own["alphas"].index(run["alpha"])
                for name, facts in own["datasets"].items():
                    if values := facts.get("further", {}).get("calibration_error"):
                        errors.setdefault(suite, {}).setdefault(name, []).append(values[at])
        for suite, by_set in errors.items():
            columns = [Column("method", left=True), *map(Column, by_set)]
            title = f"{suite}: expected calibration error, %, mean over runs"
            table = tables.setdefault(suite, Table(columns, title=title))
            names = [column.title for column in table.columns[1:]]
            means = [by_set[name] for name in names if name in by_set]
            table.add(method["label"], *(f"{100 * sum(m) / len(m):.1f}" for m in means))
    return [*tables.values()] or ["The results have no calibration error."]


def _cost(summary: dict[str, Any]) -> Figure:
    rows = [(method["label"], method["cost"]) for method in summary["methods"]]
    known = [(label, cost) for label, cost in rows if any(cost.get(key) for key in COST)]
    note = "Means over the runs. Time is that of training, on the machine that trained."
    return costs(known, note)


def _protocol(folder: Folder, summary: dict[str, Any]) -> list[Folded | str]:
    """The protocol of each suite, as the first run that was scored on it has it; which runs."""
    found: dict[str, Folded] = {}
    for run in (run["run"] for method in summary["methods"] for run in method["runs"]):
        result = folder.read_run(run)
        for suite, own in (result["suites"] if result else {}).items():
            if suite in found:
                continue
            lines = [f"{key}: {value}" for key, value in own["protocol"].items()]
            for name, facts in own["datasets"].items():
                partial = f"; partial: {facts['partial']}" if facts["partial"] else ""
                metrics = ", ".join(metric_of(metric).title for metric in facts["metrics"])
                lines.append(f"{name}: {facts['pictures']:,} pictures{partial}; {metrics}")
            found[suite] = Folded(f"{suite}, as {run} was scored", lines)
    for method in summary["methods"]:
        runs = [f"{run['run']}: alpha {run['alpha']:g}" for run in method["runs"]]
        found[f"runs of {method['label']}"] = Folded(f"The runs of {method['label']}", runs)
    return [*found.values()]
