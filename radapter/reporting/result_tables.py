"""The tables that `radapter eval` prints, from a result as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from radapter.evaluation.scores import headlines, tasks_of
from radapter.reporting.composed_tables import composed_table
from radapter.reporting.parity_tables import parity_tables
from radapter.reporting.retrieval_tables import retrieval_table
from radapter.reporting.suite_tables import (
    counted,
    dataset_table,
    means_of_roles,
    members,
    protocol_notes,
    tuned_and_engine,
    with_interval,
)
from radapter.reporting.table import GROUP, Column, Table


def evaluation_tables(result: dict[str, Any]) -> Iterator[Table]:
    """A header, a table with a column a model, and the parity of the engines that took part."""
    yield _scores(result | {"models": _shown(result["models"])})
    yield from parity_tables(result["parity"])


def _shown(models: dict[str, Any]) -> dict[str, Any]:
    """The models that get a column: of engines beside the model in PyTorch, the first alone."""
    tuned, engine = tuned_and_engine(models)
    if tuned is None:
        return models
    labels = list(models)
    return {label: models[label] for label in labels[: labels.index(engine or tuned) + 1]}


def _scores(result: dict[str, Any]) -> Table:
    first = next(iter(result["models"].values()))
    what = f"alpha {result['alpha']:.2f}" if "alpha" in result else result["model"]
    tasks = [tasks_of(facts) for facts in first["datasets"].values()]
    table = dataset_table
    if all(own == ["retrieval"] for own in tasks):
        table = retrieval_table
    elif all(own in (["composed"], []) for own in tasks):  # none where a server has the answers
        table = composed_table
    return table(result, f"{result['suite']}, {what}")


def alpha_table(result: dict[str, Any]) -> Table:
    """For each metric a row an alpha, a column for each role and named average; then what the
    numbers depend on."""
    points, chosen = result["points"], result["chosen"]
    first = points[0]
    columns = _alpha_columns(first)
    titles = [Column(_alpha_title(first, *column), wrap="letters") for column in columns]
    title = f"{result['suite']}, over alpha, {first['runtime']}"
    table = Table([Column("alpha", left=True, wrap="never"), *titles], title=title)
    for key, metric in headlines().items():
        if not any(key in first[part][name] for part, name in columns):
            continue
        table.add(metric.title, style=GROUP)
        for point in points:
            found = [point[part][name].get(key) for part, name in columns]
            cells = [with_interval(item, metric) if item else "-" for item in found]
            mark = " <-" if point["alpha"] == chosen else ""
            table.add(f"  {point['alpha']:g}{mark}", *cells)
    if not columns:
        table.note("No role has a data set that is whole.", "")
    table.note(
        f"In %. {'' if chosen is None else f'<- is the merged model, alpha {chosen:g}. '}"
        "Shifted data is for looking at: `radapter merge --alpha auto` chooses without it.\n"
        f"{first['device']}, {first['precision']}; the file has the hash of each alpha's weights."
    )
    said = [f"{result['seen']}."] if "seen" in result else []
    table.note("\n".join([*said, *protocol_notes(first, result["protocol"])]))
    return table


def _alpha_columns(point: dict[str, Any]) -> list[tuple[str, str]]:
    """(part of a point, name): roles, averages, and harmonic means: of averages, if there are any,
    as those of pairs of data sets are many."""
    roles = means_of_roles(point)
    alone = [r for r, mean in point["roles"].items() if r in roles or len(members(mean)) == 1]
    harmonic = point.get("harmonic_means", {})
    averages = list(point.get("averages", {}))
    of_averages = [name for name, mean in harmonic.items() if {*mean["of"]} & {*averages}]
    return [
        *(("roles", role) for role in alone),
        *(("averages", name) for name in averages),
        *(("harmonic_means", name) for name in of_averages or harmonic),
    ]


def _alpha_title(point: dict[str, Any], part: str, name: str) -> str:
    facts = point[part][name]
    if part == "harmonic_means":
        return f"harmonic mean: {name}"
    names, several = facts["datasets"], len(members(facts)) > 1
    if part == "roles":
        name += f": mean of {counted(facts)}" if several else f": {names[0]}"
    elif facts.get("left_out"):
        name = f"{name}: {counted(facts)}"
    return name + " (partial)" * any(point["datasets"][n]["partial"] for n in names)
