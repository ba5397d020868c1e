"""The table of a study, from its result JSON alone: means, deviations, intervals, what survives.

A method's number is the mean over its trainings, which differ in seed (and fold). Intervals are of
95 %: clusters (classes, say) are resampled, and the error of the mean over trainings is Student's,
for they are few. Differences from the baseline are paired: of the same seeds and clusters.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radapter.errors import BrokenInput, UsageError, nearest
from radapter.evaluation import intervals
from radapter.study.controls import add_controls
from radapter.study.remarks import not_above, remarks, trivial_rows
from radapter.study.results import SCHEMA_VERSION, Folder, numbers_of, share_of

Result = dict[str, Any]
Summary = dict[str, Any]
NO_MEAN = ("memory_of",)


@dataclass(frozen=True)
class Method:
    """A method all of whose runs are there."""

    label: str
    rule: str | float
    chosen: list[str]
    """The changes of its trial"""
    runs: list[dict[str, Any]]
    """`fold`, `seed` and `run`, and the `alpha` of each"""
    results: list[Result]
    shows: dict[str, str]
    """See `schema.StudyMethod`"""

    def scored(self, result: Result, column: Column, name: str) -> dict[str, Any]:
        """What one of its results has of a data set in the place of the column's metric."""
        metrics = result["suites"][column.suite]["datasets"][name]["metrics"]
        found: dict[str, Any] = metrics[self.shows.get(column.metric, column.metric)]
        return found

    def has(self, metric: str, suite: str, name: str) -> bool:
        """Whether all its results have such a number of a data set."""
        wanted = self.shows.get(metric, metric)
        return all(wanted in own["suites"][suite]["datasets"][name]["metrics"]
                   for own in self.results)  # fmt: skip

    def places(self, suite: str, alpha: float | None = None) -> list[int]:
        """Where in the suite's alphas each run is, at its own alpha or a common one."""
        return [
            result["suites"][suite]["alphas"].index(run["alpha"] if alpha is None else alpha)
            for run, result in zip(self.runs, self.results, strict=True)
        ]


@dataclass(frozen=True)
class Column:
    """What is compared: a metric on a data set, or its mean over several."""

    suite: str
    place: str
    role: str | None
    sets: tuple[str, ...]
    metric: str


def summarise(folder: Folder, baseline: str | None = None) -> Summary:
    """`table.json`, see `radapter.study.results`.

    Args:
        baseline: the method that differences are from, if not the study's.

    Raises:
        BrokenInput: no method has all its runs, a file is missing or damaged, or methods were
            scored on different pictures.
        UsageError: `compare` names what no suite has, or there is no such baseline.
    """
    outline = folder.read_study()
    study = outline["study"]
    if baseline is not None and baseline not in outline["methods"]:
        known = nearest(baseline, list(outline["methods"]))
        raise UsageError(f"--baseline '{baseline}' is not one of the methods.{known}")
    study = study | {"baseline": baseline or study["baseline"]}
    methods, incomplete = read_methods(folder, outline)
    if not methods:
        raise BrokenInput(
            f"{folder.path}: no method has all its runs yet. Go on with: radapter study STUDY"
        )
    check_pictures(folder, methods)
    metrics = study.get("metrics") or [outline["trained_metric"]]
    columns, notes = columns_of(methods, outline["suites"], metrics)
    compared = of_names(columns, study.get("compare", []))
    drawn = np.stack([resampled(methods, column) for column in columns], axis=2)
    rows = [row_of(method, columns, drawn[:, m]) for m, method in enumerate(methods)]
    add_controls(rows, columns, drawn)
    labels = [method.label for method in methods]
    count = 0
    if study["baseline"] in labels:
        count = add_differences(rows, drawn, labels.index(study["baseline"]), compared)
    else:
        notes.append(f"The baseline, {study['baseline']}, lacks runs: there are no differences.")
    trivial = trivial_rows(methods, columns)
    notes += not_above(rows, columns, trivial)
    return {
        "schema_version": SCHEMA_VERSION,
        "study": {key: study.get(key, "") for key in ("name", "description", "baseline")},
        "columns": [vars(column) | {"sets": list(column.sets)} for column in columns],
        "methods": rows,
        "trivial": trivial,
        "comparisons": count,
        "incomplete": incomplete,
        "notes": [*notes, *remarks(study, methods, incomplete)],
    }


# ---------------------------------------------------------------- what is there


def read_methods(
    folder: Folder, outline: Mapping[str, Any]
) -> tuple[list[Method], list[dict[str, Any]]]:
    """The methods that have all their runs, and how far the others are."""
    suites = outline["suites"]
    there: list[Method] = []
    incomplete: list[dict[str, Any]] = []
    for label, own in outline["methods"].items():
        found = [(run, folder.read_run(run["run"])) for run in own["finalists"]]
        runs, results = [], []
        for run, result in found:
            if result is None or not set(suites) <= result["suites"].keys():
                continue
            auto = own["alpha"] == "auto"
            alpha = float(result["held_out"]["auto"] if auto else own["alpha"])
            runs.append(run | {"alpha": alpha})
            results.append(result)
        if not found or len(results) < len(found):
            incomplete.append({"label": label, "done": len(results), "of": len(found) or None})
            continue
        chosen = own["settings"][own["chosen"]] if own["chosen"] is not None else []
        shows = own.get("shows", {})
        there.append(Method(label, own["alpha"], chosen, runs, results, shows))
    return there, incomplete


def check_pictures(folder: Folder, methods: Sequence[Method]) -> None:
    """BrokenInput if runs of one fold were not scored on the same pictures and texts."""
    first: dict[tuple[int, str, str], tuple[str, str]] = {}
    for method in methods:
        for run, result in zip(method.runs, method.results, strict=True):
            for suite, own in result["suites"].items():
                for name, facts in own["datasets"].items():
                    key = (run["fold"], suite, name)
                    known = first.setdefault(key, (facts["fingerprint"], run["run"]))
                    if known[0] != facts["fingerprint"]:
                        raise BrokenInput(
                            f"{folder.run(run['run'])} was scored on other pictures or texts of "
                            f"{name} ({suite}) than {folder.run(known[1])}. Remove the older "
                            "file, and type again: radapter study STUDY"
                        )


def columns_of(
    methods: Sequence[Method], suites: Sequence[str], metrics: Sequence[str]
) -> tuple[list[Column], list[str]]:
    """What every run was scored on: of each suite the data sets role by role, before them the mean
    of a role that has several, and the suite's averages."""
    found: list[Column] = []
    notes: list[str] = []
    results = [result for method in methods for result in method.results]
    for suite in suites:
        of_all = [result["suites"][suite] for result in results]
        datasets = of_all[0]["datasets"]
        common = [n for n in datasets if all(n in own["datasets"] for own in of_all)]
        left_out = {n for own in of_all for n in own["datasets"]} - set(common)
        if left_out:
            notes.append(f"Not every run was scored on {', '.join(sorted(left_out))} of {suite}.")
        for metric in metrics:
            names = [n for n in common if all(m.has(metric, suite, n) for m in methods)]
            roles = {n: datasets[n]["role"] for n in names}
            whole = [n for n in names if not datasets[n]["partial"]]
            for place, members in _places(roles, of_all[0]["protocol"].get("averages", {})):
                if len(members) > 1:
                    members = [n for n in members if n in whole]
                of_role = {roles[n] for n in members}
                role = of_role.pop() if len(of_role) == 1 else None
                if members:
                    found.append(Column(suite, place, role, tuple(members), metric))
    if not found:
        raise BrokenInput("No suite of the study has a number of the metric that it compares.")
    return found, notes


def _places(roles: Mapping[str, str], averages: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Names and data sets of columns."""
    places: dict[tuple[str, ...], str] = {}
    for role in dict.fromkeys(roles.values()):
        members = [name for name in roles if roles[name] == role]
        if len(members) > 1:
            places[tuple(members)] = role
        for name in members:
            places[name,] = name
    for name, of in averages.items():
        members = [n for n in roles if roles[n] == of] if isinstance(of, str) else of
        if set(members) <= roles.keys():
            places[tuple(sorted(members, key=list(roles).index))] = name
    return [(name, list(members)) for members, name in places.items()]


def of_names(columns: Sequence[Column], names: Sequence[str]) -> list[bool]:
    """Which columns are compared: those that are named, all if none is. A role whose mean has
    another name, of an average or its only data set, means that one."""
    known = dict.fromkeys(column.place for column in columns)
    wanted: set[str] = set()
    for name in names:
        of_role = [column for column in columns if column.role == name]
        if name not in known and not of_role:
            raise UsageError(
                f"Nothing of the suites is called '{name}'.{nearest(name, list(known))}"
            )
        if name in known:
            wanted.add(name)
        else:
            most = max(len(column.sets) for column in of_role)
            wanted |= {column.place for column in of_role if len(column.sets) == most}
    return [not names or column.place in wanted for column in columns]


# ---------------------------------------------------------------- numbers


def by_run(method: Method, column: Column, alpha: float | None = None) -> list[float]:
    """The share of hits of each training; over several data sets their mean."""
    return [
        float(np.mean([
            share_of(method.scored(result, column, name), at)
            for name in column.sets
        ]))
        for at, result in zip(method.places(column.suite, alpha), method.results, strict=True)
    ]  # fmt: skip


def resampled(methods: Sequence[Method], column: Column) -> np.ndarray:
    """The column's numbers in resamples of trainings and clusters, [resamples, methods]."""
    names = {name: _clusters(methods, column, name) for name in column.sets}
    groups = _sharing(list(names.values()))
    places = []
    for group in groups:
        shared = [own for own, of in zip(names.values(), groups, strict=True) if of == group]
        places.append({c: at for at, c in enumerate(sorted(set().union(*shared), key=str))})
    counted = [_counts(methods, column, name, of) for name, of in zip(names, places, strict=True)]
    sums, counts = [own[0] for own in counted], [own[1] for own in counted]
    return np.mean(intervals.over_trainings(sums, counts, groups), axis=0)


def _sharing(sets: Sequence[set[Any]]) -> list[int]:
    """A number for each set: those that share a cluster, or are joined by others, have the same."""
    groups = list(range(len(sets)))
    for i, j in itertools.combinations(range(len(sets)), 2):
        if groups[i] != groups[j] and sets[i] & sets[j]:
            groups = [groups[i] if own == groups[j] else own for own in groups]
    return groups


def _clusters(methods: Sequence[Method], column: Column, name: str) -> set[Any]:
    """The clusters of a data set, over all runs."""
    return {
        cluster
        for method in methods
        for run, result in zip(method.runs, method.results, strict=True)
        for cluster in _clusters_of(method, run, result, column, name)
    }


def _clusters_of(
    method: Method, run: Mapping[str, Any], result: Result, column: Column, name: str
) -> Sequence[Any]:
    """The clusters of a data set in a run, in their order."""
    place = method.scored(result, column, name)["clusters"]
    found = result["suites"][column.suite]["clusters"][place]
    if isinstance(found, int):  # pictures, which are those of the fold and no other set's
        return [(name, run["fold"], number) for number in range(found)]
    return list(found)


def _counts(
    methods: Sequence[Method], column: Column, name: str, places: Mapping[Any, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Of a data set the hits [methods, trainings, clusters] and items [trainings, clusters], each
    cluster at its place."""
    sums = np.zeros((len(methods), len(methods[0].runs), len(places)))
    counts = np.zeros(sums.shape[1:])
    for m, method in enumerate(methods):
        alphas = method.places(column.suite)
        for r, (run, result) in enumerate(zip(method.runs, method.results, strict=True)):
            metric = method.scored(result, column, name)
            own = [places[cluster] for cluster in _clusters_of(method, run, result, column, name)]
            sums[m, r, own] = numbers_of(metric["right"][alphas[r]])
            items = numbers_of(metric["items"])
            if m and not np.array_equal(counts[r, own], items):
                raise BrokenInput(
                    f"{method.label}: its {name} in {column.suite} has other items than that of "
                    f"{methods[0].label}. `shows` takes measures of the same items."
                )
            counts[r, own] = items
    return sums, counts


def row_of(method: Method, columns: Sequence[Column], drawn: np.ndarray) -> dict[str, Any]:
    """A method of `table.json`. `drawn` is [resamples, columns]."""
    values = []
    one_run = len({run["run"] for run in method.runs}) == 1
    for c, column in enumerate(columns):
        own = by_run(method, column)
        values.append(
            {
                "mean": float(np.mean(own)),
                "deviation": None if one_run else float(np.std(own, ddof=1)),
                "interval": intervals.interval_of(drawn[:, c]),
                "by_run": own,
            }
        )
    return {
        "label": method.label,
        "kind": method.results[0]["kind"],
        "rule": method.rule,
        "set": method.chosen,
        "runs": method.runs,
        "cost": cost_of(method.results),
        "values": values,
        "differences": None,
        "curve": curve_of(method, columns),
    }


def cost_of(results: Sequence[Result]) -> dict[str, Any]:
    """Medians over runs, since other work on the machine makes some slow; None where a run does not
    say."""
    found: dict[str, Any] = {}
    for key in results[0]["cost"]:
        own = [result["cost"][key] for result in results]
        if key in NO_MEAN:
            found[key] = own[0] if len(set(own)) == 1 else None
        else:
            found[key] = None if None in own else float(np.median(own))
    return found


def curve_of(method: Method, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Means in every column at each alpha at which every run was scored on every suite."""
    scored = [set(own["alphas"]) for result in method.results for own in result["suites"].values()]
    return [
        {
            "alpha": alpha,
            "values": [float(np.mean(by_run(method, column, alpha))) for column in columns],
        }
        for alpha in sorted(set.intersection(*scored))
    ]


def add_differences(
    rows: Sequence[dict[str, Any]], drawn: np.ndarray, base: int, compared: Sequence[bool]
) -> int:
    """Fill in the differences from row `base`, and return how many are compared.

    Args:
        drawn: [resamples, methods, columns].
        compared: which columns count.
    """
    family: list[dict[str, Any]] = []
    for m, row in enumerate(rows):
        if m == base:
            continue
        row["differences"] = []
        for c, (own, other) in enumerate(zip(row["values"], rows[base]["values"], strict=True)):
            apart = np.round(drawn[:, m, c] - drawn[:, base, c], 12)  # what is equal is 0
            low, high = intervals.interval_of(apart)
            entry = {
                "mean": own["mean"] - other["mean"],
                "interval": (low, high),
                "p": intervals.p_value(apart),
                "shown": low > 0 or high < 0,
                "holm": None,
            }
            row["differences"].append(entry)
            family += [entry] if compared[c] else []
    survive = intervals.holm([entry["p"] for entry in family])
    for entry, does in zip(family, survive, strict=True):
        entry["holm"] = does and entry["shown"]
    return len(family)
