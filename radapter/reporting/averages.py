"""Means over runs that differ in seed alone, and over sets too, as papers report them.

Runs are averaged where their recipes are equal but for `seed` (and `data.shots_seed`), at the same
alpha, and only numbers that may be compared: those of one group, that all of them have. Over sets,
recipes are equal but for the setting that names the set (CoOp's `dataset`) too, every set has the
same seeds, and a run's number is of the set that it trained on, which is whole. The harmonic mean
is that of the averages, as the tables of CoCoOp and MaPLe have it, not the mean of harmonic means.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from radapter.evaluation.intervals import harmonic_mean
from radapter.recipe import Recipe
from radapter.reporting.comparison import (
    FACTS,
    HARMONIC,
    OF_THE_SETS,
    Average,
    ComparedModel,
    Comparison,
    Number,
)

Key = tuple[str, str, str]


def add_averages(comparison: Comparison) -> None:
    """Fill `averages`, and say in `notes` what was not averaged, and why."""
    over_sets: dict[str, dict[str, list[int]]] = {}
    refused: set[str] = set()
    alike: dict[str, list[int]] = {}
    """Places of rows with numbers, those that differ in seed alone together"""
    for place, row in enumerate(comparison.rows):
        if row.numbers:
            alike.setdefault(_key(row), []).append(place)
    for places in alike.values():
        rows = [comparison.rows[place] for place in places]
        problem = _problem(rows)
        if problem:
            comparison.notes.append(problem)
            refused.add(_key(rows[0], over_sets=True))
        elif len(rows) > 1 and not rows[0].is_zero_shot:
            _add(comparison, {_dataset(rows[0]): places})
        if _dataset(rows[0]):
            over_sets.setdefault(_key(rows[0], over_sets=True), {})[_dataset(rows[0])] = places
    for key, by_set in over_sets.items():
        if len(by_set) < 2 or key in refused:
            continue
        draws = [_draws([comparison.rows[p] for p in places]) for places in by_set.values()]
        if all(own == draws[0] and len(set(own)) == len(own) for own in draws):
            _add(comparison, by_set)
        elif not comparison.rows[next(iter(by_set.values()))[0]].is_zero_shot:
            said = [
                f"{name} {', '.join(f'{seed}/{shots}' for seed, shots in own)}"
                for name, own in zip(by_set, draws, strict=True)
            ]
            comparison.notes.append(
                f"No mean over sets, whose seeds (seed/shots_seed) are not the same: "
                f"{'; '.join(said)}."
            )
    comparison.averages.sort(key=lambda average: average.of[-1])


def _key(row: ComparedModel, over_sets: bool = False) -> str:
    """The same for rows that differ in seed alone, or in set too."""
    assert row.recipe is not None
    tree = but_seed(row.recipe, over_sets)
    if row.is_zero_shot:
        # One row for all runs from this model, so that only the set and the rules tell them apart.
        own = {"method": row.facts["method"], "settings": _rules(row)}
        tree = {"dataset": None if over_sets else _dataset(row), **own}
    facts = {"base": row.facts["base_hash"], "alpha": row.facts["alpha"]}
    return json.dumps({**tree, **facts}, sort_keys=True)


def but_seed(recipe: Recipe, over_sets: bool = False) -> dict[str, Any]:
    """A recipe as plain data, without what says its seed, or the one of several sets either."""
    of_data = {"shots_seed", *([recipe.data.averaged_over] if over_sets else [])}
    tree: dict[str, Any] = recipe.model_dump(mode="json")
    data = {key: value for key, value in tree["data"].items() if key not in of_data}
    return tree | {"seed": None, "data": data}


def _rules(row: ComparedModel) -> dict[str, Any]:
    """By suite, the protocol without what names the sets."""
    return {
        suite: {k: v for k, v in own["protocol"].items() if k not in OF_THE_SETS}
        for suite, own in sorted(row.settings.items())
    }


def _dataset(row: ComparedModel) -> str:
    """The one of several sets that was trained on, or nothing."""
    data = row.recipe.data if row.recipe else None
    return getattr(data, data.averaged_over) if data and data.averaged_over else ""


def _draws(rows: Sequence[ComparedModel]) -> list[tuple[int, int]]:
    """Seed and data.shots_seed of each row, sorted; (-1, -1) of the zero-shot model."""
    recipes = [None if row.is_zero_shot else row.recipe for row in rows]
    return sorted((r.seed, getattr(r.data, "shots_seed", 0)) if r else (-1, -1) for r in recipes)


def _problem(rows: Sequence[ComparedModel]) -> str | None:
    """Why runs that are alike cannot be averaged."""
    if rows[0].is_zero_shot:
        return None
    names = ", ".join(str(row.facts["run"]) for row in rows)
    seeds, shots = map(set, zip(*_draws(rows), strict=True))
    if len(seeds) < len(rows):
        return f"No mean of {names}: their recipes are equal and a seed is there twice."
    if len(shots) not in (1, len(rows)):
        return f"No mean of {names}: data.shots_seed is neither one nor another for each seed."
    return None


def _add(comparison: Comparison, by_set: dict[str, list[int]]) -> None:
    """The average of rows of one set, or of several of the same seeds."""
    rows = comparison.rows
    grid = [sorted((rows[p] for p in places), key=_seed) for places in by_set.values()]
    seeds = [_seed(row) for row in grid[0] if not row.is_zero_shot]
    sets = list(by_set) if len(by_set) > 1 else []
    members = [row for row in rows if any(row is own for line in grid for own in line)]
    of = sorted(place for places in by_set.values() for place in places)
    average = Average(_facts(members, seeds, sets), of=of, seeds=seeds, sets=sets)
    for key in members[0].numbers:
        if key[1] != HARMONIC and _comparable(members, key, sets):
            average.numbers[key] = _mean(grid, key)
    for suite, (first, second) in members[0].halves.items():
        key = (suite, HARMONIC, "accuracy")
        one, other = (average.numbers.get((suite, role, "accuracy")) for role in (first, second))
        if one and other and _comparable(members, key, sets):
            value = float(harmonic_mean(one.value, other.value))
            average.numbers[key] = Number(value, None, one.group)
    if average.numbers:
        comparison.averages.append(average)
    elif sets and seeds:
        comparison.notes.append(
            f"No mean over {', '.join(sets)}: no number of whole sets by one protocol is in all."
        )


def _seed(row: ComparedModel) -> int:
    return row.recipe.seed if row.recipe else 0


def _comparable(rows: Sequence[ComparedModel], key: Key, sets: Sequence[str]) -> bool:
    """Whether all rows have a number and it means the same in each."""
    suite, role, _ = key
    if any(key not in row.numbers for row in rows):
        return False
    if not sets:
        return len({row.numbers[key].group for row in rows}) == 1
    if len({(_dataset(row), row.numbers[key].group) for row in rows}) > len(sets):
        return False  # within a set, as over seeds
    rules = [_rules(row)[suite] for row in rows]
    return all(
        rule == rules[0]
        and (suite, role) not in row.partial
        and {name.split("-")[0] for name in row.settings[suite]["data"][role]} == {_dataset(row)}
        for row, rule in zip(rows, rules, strict=True)
    )


def _mean(grid: Sequence[Sequence[ComparedModel]], key: Key) -> Number:
    """Of rows [sets, seeds]; the deviation is that of each seed's mean over the sets."""
    by_seed = np.mean([[row.numbers[key].value for row in rows] for rows in grid], axis=0)
    deviation = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None
    group = grid[0][0].numbers[key].group if len(grid) == 1 else ""
    return Number(float(by_seed.mean()), None, group, deviation=deviation)


def _facts(
    rows: Sequence[ComparedModel], seeds: Sequence[int], sets: Sequence[str]
) -> dict[str, Any]:
    """What all rows have in common; of the time of training the mean, of memory the peak."""
    first = rows[0].facts
    facts = {
        key: first[key] if all(row.facts[key] == first[key] for row in rows) else None
        for key in FACTS
    }
    parts = [f"{len(sets)} sets"] if sets else []
    parts += [f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"] if seeds else []
    facts["run"] = f"mean of {', '.join(parts)}"
    if rows[0].facts["data"]:
        # Without the seed that drew the pictures, and without the set.
        texts = [str(row.facts["data"]).split(", ") for row in rows]
        facts["data"] = ", ".join(p for p in texts[0] if all(p in text for text in texts))
    times = [row.facts["seconds"] for row in rows]
    facts["seconds"] = None if None in times else float(np.mean(times))
    peaks = [row.facts["peak_memory_bytes"] for row in rows]
    facts["peak_memory_bytes"] = max(peaks) if facts["memory_of"] and None not in peaks else None
    return facts
