"""The table of a suite of composed retrieval alone: every way to make a query, as in papers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from radapter.data.edits import MEASURES
from radapter.evaluation.tasks.composed import METRICS, WAYS
from radapter.reporting.suite_tables import (
    counted,
    means_of_roles,
    notes,
    tuned_and_engine,
    with_interval,
)
from radapter.reporting.table import GROUP, Column, Table


def composed_table(result: dict[str, Any], title: str) -> Table:
    """For each data set, mean of a role and average what its benchmark reports: a row for each way
    to make a query and each model, and one for a random order. Below it what numbers depend on."""
    models = result["models"]
    first = next(iter(models.values()))
    tuned, engine = tuned_and_engine(models)
    parts = list(_parts(first))
    width = max((len(_measures(first[of][name])) for of, name, _ in parts), default=0)
    columns = [Column("in %", left=True, wrap="letters"), *[Column("", wrap="never")] * width]
    table = Table(columns, title=title, notes=[notes(result)])
    for of, name, words in parts:
        facts, measures = first[of][name], _measures(first[of][name])
        table.add(words, *(MEASURES[measure].title for measure in measures), style=GROUP)
        if not measures:
            table.add("  the right pictures are on a server", style="dim")
            continue
        for way in WAYS:
            metrics = [f"{way}_{measure}" for measure in measures]
            having = {m: own for m, own in models.items() if metrics[0] in own[of].get(name, ())}
            several = len(models) > 1
            if several and having:
                table.add(f"  {WAYS[way]}")
            for label, model in having.items():
                cells = [with_interval(model[of][name][m], METRICS[m]) for m in metrics]
                table.add(f"    {label}" if several else f"  {WAYS[way]}", *cells)
            if {tuned, engine} <= having.keys():
                values = [[models[m][of][name][metric]["value"] for metric in metrics]
                          for m in (engine, tuned)]  # fmt: skip
                changes = [f"{100 * (a - b):+.2f}" for a, b in zip(*values, strict=True)]
                table.add(f"    {engine} - alpha", *changes)
        chances = [facts[f"composed_{measure}"]["chance"] for measure in measures]
        table.add("  random order", *(f"{100 * chance:.1f}     " for chance in chances))
    return table


def _measures(facts: dict[str, Any]) -> list[str]:
    return [name for name in MEASURES if f"composed_{name}" in facts]


def _parts(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Where in a model's part of a result a block of the table stands, and its heading; means only
    where all of their data sets report the same."""
    for name, facts in model["datasets"].items():
        yield "datasets", name, f"{facts['role']}: {name}" + " (partial)" * bool(facts["partial"])
    for role, mean in means_of_roles(model).items():
        if _measures(mean):
            yield "roles", role, f"{role}: mean of {counted(mean)}"
    for name, mean in model.get("averages", {}).items():
        if _measures(mean):
            yield "averages", name, name
