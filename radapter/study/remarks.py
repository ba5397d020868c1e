"""What a reader of a study's table has to know, and what answers score that look at no picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from radapter.evaluation.scores import metric_of
from radapter.registry import GATES

if TYPE_CHECKING:
    from radapter.study.table import Column, Method

CHANCE = "chance"


def trivial_rows(methods: Sequence[Method], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """`trivial` of `table.json`, see `study.results`: means over the runs of the first method, as
    all are scored on the same pictures."""
    of_columns = [_of(methods[0], column) for column in columns]
    labels = dict.fromkeys(label for own in of_columns for label in own)
    return [{"label": label, "values": [own.get(label) for own in of_columns]} for label in labels]


def _of(method: Method, column: Column) -> dict[str, float]:
    """By what they are; over several data sets the mean, if each has such a row."""
    found: dict[str, list[float]] = {}
    scored = [method.scored(result, column, n) for result in method.results for n in column.sets]
    for item in scored:
        for label, value in {CHANCE: item["chance"], **item.get("trivial", {})}.items():
            found.setdefault(label, []).append(value)
    return {label: float(np.mean(own)) for label, own in found.items() if len(own) == len(scored)}


def not_above(
    methods: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    trivial: Sequence[Mapping[str, Any]],
) -> list[str]:
    """A sentence for each method whose interval is not above every trivial row.

    Args:
        methods: rows of `table.json`.
        trivial: what `trivial_rows` gives.
    """
    found = []
    for method in methods:
        places = [
            f"{column.place} ({metric_of(column.metric).title})"
            for c, column in enumerate(columns)
            if metric_of(column.metric).better == "larger"
            if method["values"][c]["interval"][0]
            <= max(row["values"][c] for row in trivial if row["values"][c] is not None)
        ]
        if places:
            found.append(
                f"{method['label']} is not above every trivial row by its interval in "
                f"{', '.join(places)}."
            )
    return found


def remarks(
    study: Mapping[str, Any], methods: Sequence[Method], incomplete: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What a reader has to know to read the numbers."""
    found = []
    trainings = len(methods[0].runs)
    if trainings == 1:
        found.append("There is one seed: intervals are over test items alone.")
    if study.get("unequal_trials"):
        found.append(f"Methods had different numbers of trials: {study['unequal_trials']}")
    weights = {result["base_hash"][:8] for method in methods for result in method.results}
    if len(weights) > 1:
        found.append(f"Methods start from different weights: {', '.join(sorted(weights))}.")
    of_methods = study.get("methods", {})
    merges = ((m.label, of_methods.get(m.label, {}).get("merge")) for m in methods)
    if mixed := [label for label, merge in merges if merge and merge["rule"] in GATES]:
        found.append(
            f"{', '.join(mixed)}: the zero-shot and the tuned model together, mixed for each "
            "picture. Both are stored and run for it, with clusters also a model for each; what is "
            "stored above is the tuned model's part alone."
        )
    for own in incomplete:
        of = (
            f"{own['done']} of {own['of']} runs are there" if own["of"] else "nothing is chosen yet"
        )
        found.append(f"{own['label']} is not in the table: {of}.")
    return found
