"""The tables that `radapter eval` prints, from a result as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from radapter.evaluation.scores import headlines, tasks_of
from radapter.reporting.parity_tables import parity_tables
from radapter.reporting.retrieval_tables import retrieval_tables
from radapter.reporting.suite_tables import (
    counted,
    dataset_tables,
    means_of_roles,
    members,
    protocol_notes,
    tuned_and_engine,
    with_interval,
)


def evaluation_tables(result: dict[str, Any]) -> Iterator[RenderableType]:
    """A header, a table with a column a model, and the parity of the engines that took part."""
    yield from _scores(result | {"models": _shown(result["models"])})
    yield from parity_tables(result["parity"])


def _shown(models: dict[str, Any]) -> dict[str, Any]:
    """The models that get a column: of engines beside the model in PyTorch, the first alone."""
    tuned, engine = tuned_and_engine(models)
    if tuned is None:
        return models
    labels = list(models)
    return {label: models[label] for label in labels[: labels.index(engine or tuned) + 1]}


def _scores(result: dict[str, Any]) -> Iterator[RenderableType]:
    models = result["models"]
    first = next(iter(models.values()))
    what = f"alpha {result['alpha']:.2f}" if "alpha" in result else result["model"]
    yield Text(f"{result['suite']}, {what}", style="bold")
    if all(tasks_of(facts) == ["retrieval"] for facts in first["datasets"].values()):
        yield from retrieval_tables(result)
        return
    yield from dataset_tables(result)


def alpha_table(result: dict[str, Any]) -> Iterator[RenderableType]:
    """For each metric a row an alpha, a column for each role and named average; then what the
    numbers depend on."""
    points, chosen = result["points"], result["chosen"]
    first = points[0]
    yield Text(f"{result['suite']}, over alpha, {first['runtime']}", style="bold")
    columns = _alpha_columns(first)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("alpha", no_wrap=True)
    for part, name in columns:
        table.add_column(Text(_alpha_title(first, part, name)), justify="right", overflow="fold")
    for key, metric in headlines().items():
        if not any(key in first[part][name] for part, name in columns):
            continue
        table.add_row(Text(metric.title, style="italic"))
        for point in points:
            found = [point[part][name].get(key) for part, name in columns]
            cells = [with_interval(item, metric) if item else Text("-") for item in found]
            mark = " <-" if point["alpha"] == chosen else ""
            table.add_row(f"  {point['alpha']:g}{mark}", *cells)
    if columns:
        yield table
    else:
        yield Text("No role has a data set that is whole.")
    yield Text(
        f"In %. {'' if chosen is None else f'<- is the merged model, alpha {chosen:g}. '}"
        "Shifted data is for looking at: `radapter merge --alpha auto` chooses without it.\n"
        f"{first['device']}, {first['precision']}; the file has the hash of each alpha's weights.",
        style="dim",
    )
    yield Text("\n".join(protocol_notes(first, result["protocol"])), style="dim")


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
