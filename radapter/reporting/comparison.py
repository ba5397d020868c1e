"""Several runs side by side: what they are, what they score, and what may be compared with what.

Numbers are compared within a group: the same suite and role, the same base weights, the same
protocol, the same pictures and texts. A group of its own gets a letter and a reason, and is never
ranked against another. Within a group the best number is marked as best where its lead over the
next is larger than the 95 % interval of their difference, taken as if the two were independent
(on the same pictures they are not, which is the careful side); otherwise it and all that it does
not lead by as much are marked as within noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from radapter.errors import BrokenInput, command
from radapter.evaluation.published import EQUAL_CLASSES
from radapter.evaluation.scores import metrics, tasks_of
from radapter.evaluation.written import of_kind, read_result
from radapter.files import radapter_facts
from radapter.recipe import Recipe
from radapter.run import Run

NO_PROTOCOL = ("device", "seed", "versions")
"""What a result may say of its protocol that changes no number by more than noise"""
OF_THE_SETS = ("dataset_templates", "harmonic_means")
"""Keys of a protocol that name data sets, and so differ with them"""
OF_TASKS = {"calibration": "classification", "retrieval": "retrieval"}
"""Keys of a protocol that earlier versions wrote for every suite, and whose numbers they are of"""
BEFORE = {"equal names": EQUAL_CLASSES["one"]}
"""What a data set's protocol was where an earlier version's result does not say it"""
HARMONIC = "harmonic mean"
"""In place of a role: the harmonic mean of two roles, in a result that has one"""
FACTS = ("run", "method", "base_model", "base_hash", "data", "alpha", "trained_parameters",
         "stored_bytes", "steps", "seconds", "peak_memory_bytes", "memory_of")  # fmt: skip
"""`data` is what was trained on; `seconds` is the time of training. `memory_of` says what took the
memory, the CUDA device or the process: those two are different things."""


@dataclass
class Number:
    """One metric of one model on one role of one suite."""

    value: float
    interval: tuple[float, float] | None
    group: str = "a"
    mark: str = ""
    """`best`, `noise` (not told from the best) or nothing"""
    deviation: float | None = None
    """Of a mean: the standard deviation over its seeds (n - 1)"""


@dataclass
class ComparedModel:
    """One model: a run at one alpha, or the zero-shot model that it started from."""

    facts: dict[str, Any]
    """What stands in the table of runs: `FACTS`"""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By suite: the facts that decide what its numbers may be compared with"""
    numbers: dict[tuple[str, str, str], Number] = field(default_factory=dict)
    """By (suite, role, metric)"""
    recipe: Recipe | None = None
    """What the run was trained by, or the first run that has this zero-shot model"""
    partial: set[tuple[str, str]] = field(default_factory=set)
    """(suite, role) where a data set has other than its published counts"""
    halves: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By suite: the roles that its harmonic mean is of"""
    by_set: dict[tuple[str, str, str], Number] = field(default_factory=dict)
    """By (suite, data set, metric); without groups and marks"""

    @property
    def is_zero_shot(self) -> bool:
        """Or another model that no run has trained, such as raw pixels."""
        return self.facts["run"] is None


@dataclass
class Average(ComparedModel):
    """The mean of rows that differ in seed alone, or in seed and set of CoOp's."""

    of: list[int] = field(default_factory=list)
    """Places in `Comparison.rows`"""
    seeds: list[int] = field(default_factory=list)
    """None of them if it is the zero-shot model's"""
    sets: list[str] = field(default_factory=list)
    """None if all are of one set"""


@dataclass
class Comparison:
    """The rows of `radapter compare`, and why some are not ranked together."""

    rows: list[ComparedModel]
    averages: list[Average] = field(default_factory=list)
    reasons: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """By (suite, role, group): how that group differs from group a"""
    notes: list[str] = field(default_factory=list)

    def suites(self) -> list[str]:
        return list(dict.fromkeys(key[0] for row in self.rows for key in row.numbers))

    def models(self) -> list[tuple[str, ComparedModel]]:
        """All that stands in a table with its number there: rows, each average under its last."""
        shown: list[tuple[str, ComparedModel]] = []
        for i, row in enumerate(self.rows):
            shown.append((f"{i + 1}", row))
            under = [(f"M{n}", mean) for n, mean in enumerate(self.averages, 1) if mean.of[-1] == i]
            shown += under
        return shown

    def columns(self, suite: str) -> list[tuple[str, str, str]]:
        """The suite's numbers in the order in which the results have them, metric by metric."""
        keys = list(dict.fromkeys(k for row in self.rows for k in row.numbers if k[0] == suite))
        metrics = list(dict.fromkeys(key[2] for key in keys))
        return sorted(keys, key=lambda key: metrics.index(key[2]))


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Read runs and their results in eval/*.json; results over alphas are left out.

    Raises:
        BrokenInput: a run has not finished training, or a file of it is damaged.
    """
    comparison = Comparison([])
    for run in runs:
        rows = _rows(run)
        for row in rows:
            if not (
                row.is_zero_shot and any(_add_if_same(known, row) for known in comparison.rows)
            ):
                comparison.rows.append(row)
        if not any(row.numbers for row in rows):
            comparison.notes.append(
                f"{run.name} has no results. Type first: {command('eval', '--run', run.path)}"
            )
        if rows[-1].facts["trained_parameters"] is None:
            comparison.notes.append(
                f"{run.name} is of an earlier version, which did not record parameters trained."
            )
    places = dict.fromkeys(key[:2] for row in comparison.rows for key in row.numbers)
    for suite, role in places:
        _group(comparison, suite, role)
    known = metrics()
    for suite in comparison.suites():
        for key in comparison.columns(suite):
            if key[2] in known:
                numbers = [row.numbers[key] for row in comparison.rows if key in row.numbers]
                _rank(numbers, 1 if known[key[2]].better == "larger" else -1)
    return comparison


# ---------------------------------------------------------------- reading


def _rows(run: Run) -> list[ComparedModel]:
    facts = _facts(run)
    by_alpha: dict[tuple[float | None, str], ComparedModel] = {}
    recipe = run.recipe()
    base = {"base_model": facts["base_model"], "base_hash": facts["base_hash"]}
    untrained: dict[str, ComparedModel] = {}
    for result in results_of(run):
        suite, alpha = result["suite"], result["alpha"]
        rule = result.get("rule", "")
        own = {"alpha": alpha, "method": f"{facts['method']}, {rule}" if rule else facts["method"]}
        row = by_alpha.setdefault((alpha, rule), ComparedModel(facts | own, recipe=recipe))
        if suite in row.settings:
            continue
        models = result["models"]
        label = [*of_kind(result, "tuned"), *of_kind(result, "engine")][0]
        _take(row, result, models[label], facts["base_hash"])
        for label in [*of_kind(result, "zero-shot"), *of_kind(result, "trivial")]:
            blank = dict.fromkeys(facts) | base | {"method": label}
            other = untrained.setdefault(label, ComparedModel(blank, recipe=recipe))
            if suite not in other.settings:
                _take(other, result, models[label], facts["base_hash"])
    ordered = sorted(by_alpha, key=lambda key: (key[0] is not None, key[0] or 0, key[1]))
    rows = [by_alpha[key] for key in ordered]
    known = [row for row in untrained.values() if row.numbers]
    return [*known, *(rows or [ComparedModel(facts, recipe=recipe)])]


def _add_if_same(known: ComparedModel, row: ComparedModel) -> bool:
    """Add a zero-shot model's numbers to those of the same one in another run, if they agree."""
    shared = known.settings.keys() & row.settings.keys()
    agree = known.facts == row.facts and all(
        known.settings[suite] == row.settings[suite] for suite in shared
    )
    common = known.numbers.keys() & row.numbers.keys()
    if not agree or any(known.numbers[key] != row.numbers[key] for key in common):
        return False
    known.settings |= row.settings
    known.numbers |= row.numbers
    known.by_set |= row.by_set
    known.partial |= row.partial
    known.halves |= row.halves
    return True


def results_of(run: Run) -> Iterator[dict[str, Any]]:
    """Results of models; of one suite and alpha the one that saw all runtimes comes first."""
    paths = run.evaluations.glob("*.json")
    for path in sorted(paths, key=lambda path: (len(path.stem), path.stem)):
        try:
            result = read_result(path)
            if "models" not in result:  # over alphas, or of another kind
                continue
            for model in result["models"].values():
                for role in model["roles"].values():
                    [model["datasets"][name]["fingerprint"] for name in role["datasets"]]
                [mean["of"][1] for mean in model.get("harmonic_means", {}).values()]
            result["suite"], result["protocol"].items(), float(result["alpha"] or 0)
            models = [*of_kind(result, "tuned"), *of_kind(result, "engine")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise BrokenInput(f"{path} is damaged: remove it and evaluate again.") from None
        if models:
            yield result


def _take(
    row: ComparedModel, result: dict[str, Any], model: dict[str, Any], base_hash: str
) -> None:
    suite = result["suite"]
    scored = {task for facts in model["datasets"].values() for task in tasks_of(facts)}
    of_others = [key for key, task in OF_TASKS.items() if task not in scored]
    left_out = (*NO_PROTOCOL, *of_others)
    row.settings[suite] = {
        "base": base_hash,
        "protocol": {k: v for k, v in result["protocol"].items() if k not in left_out}
        | {"precision": model.get("precision", "fp32")},
        "data": {
            role: {name: model["datasets"][name]["fingerprint"] for name in facts["datasets"]}
            for role, facts in model["roles"].items()
        },
        "choices": {
            role: {name: _choices(model["datasets"][name]) for name in facts["datasets"]}
            for role, facts in model["roles"].items()
        },
    }
    places = dict(model["roles"])
    # A run that trained on one of a suite's sets has one harmonic mean, of two roles.
    means = list(model.get("harmonic_means", {}).values())
    of = {tuple(facts["datasets"]): role for role, facts in places.items()}
    pair = [of[name,] for name in means[0]["of"] if (name,) in of] if len(means) == 1 else []
    if len(pair) == 2:
        row.halves[suite] = (pair[0], pair[1])
        places[HARMONIC] = means[0]
        for facts_of in (row.settings[suite]["data"], row.settings[suite]["choices"]):
            facts_of[HARMONIC] = facts_of[pair[0]] | facts_of[pair[1]]
    for role, facts in places.items():
        if any(model["datasets"][name].get("partial") for name in facts.get("datasets", ())):
            row.partial.add((suite, role))
        row.numbers |= {(suite, role, metric): own for metric, own in _numbers(facts)}
    for name, facts in model["datasets"].items():
        row.by_set |= {(suite, name, metric): own for metric, own in _numbers(facts)}


def _numbers(facts: dict[str, Any]) -> Iterator[tuple[str, Number]]:
    """The metrics of a role or data set."""
    for metric, item in facts.items():
        if isinstance(item, dict) and isinstance(item.get("value"), int | float):
            low_high = item.get("interval")
            interval = (float(low_high[0]), float(low_high[1])) if low_high else None
            yield metric, Number(float(item["value"]), interval)


def _choices(facts: dict[str, Any]) -> dict[str, str]:
    """What a data set's numbers depend on beside its names, labels, texts and sizes of files."""
    said = {key: value for key, value in facts.get("protocol", {}).items() if key != "template"}
    before = BEFORE if "accuracy" in facts else {}
    return before | {key: value for key, value in said.items() if not key.endswith("hash")}


def _facts(run: Run) -> dict[str, Any]:
    recipe = run.recipe()
    path = run.trained(run.which())
    try:
        adapter = radapter_facts(path)
        base = {"base_model": adapter["base_model"], "base_hash": adapter["base_hash"]}
    except (KeyError, TypeError, ValueError):
        raise BrokenInput(f"{path} is not an adapter of radapter: it has no metadata.") from None
    return {
        "run": run.name,
        "method": f"{soup['rule']} soup" if (soup := run.soup()) else method_in_words(recipe),
        **base,
        "data": data_in_words(recipe),
        "alpha": None,
        "trained_parameters": adapter.get("trained_parameters"),
        "stored_bytes": path.stat().st_size,
        "steps": adapter.get("steps"),
        **run.cost(),
    }


def data_in_words(recipe: Recipe) -> str:
    """What it was trained on."""
    more = recipe.unlabelled
    return recipe.data.in_words() + (f" + unlabelled {more.in_words()}" if more else "")


def method_in_words(recipe: Recipe) -> str:
    """The method, with its rank where that is not full, and the head that is trained with it."""
    rank = getattr(recipe.method, "rank", "full")
    head = f" + {recipe.head.name} head" if recipe.head else ""
    return recipe.method.name + ("" if rank == "full" else f", rank {rank}") + head


# ---------------------------------------------------------------- groups and ranks


def _group(comparison: Comparison, suite: str, role: str) -> None:
    """Give the numbers of a suite's role the letters of their groups; `a` is the first row's."""
    groups: list[dict[str, Any]] = []
    for row in comparison.rows:
        if not any(key[:2] == (suite, role) for key in row.numbers):
            continue
        own = dict(row.settings[suite])
        own["data"], own["choices"] = own["data"][role], own.get("choices", {}).get(role, {})
        if own not in groups:
            groups.append(own)
        letter = _letter(groups.index(own))
        for key, number in row.numbers.items():
            if key[:2] == (suite, role):
                number.group = letter
    for i, other in enumerate(groups[1:], 1):
        comparison.reasons[suite, role, _letter(i)] = _difference(groups[0], other)


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"a{number}"


def _difference(first: dict[str, Any], other: dict[str, Any]) -> str:
    reasons = []
    if first["base"] != other["base"]:
        reasons.append(f"another base model ({other['base'][:8]}, not {first['base'][:8]})")
    ours, theirs = first["protocol"], other["protocol"]
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if list(first["data"]) != list(other["data"]):
        keys = [key for key in keys if key not in OF_THE_SETS]
    reasons += [
        f"another protocol: {key} {_brief(theirs.get(key))}, not {_brief(ours.get(key))}"
        for key in keys
    ]
    data, others = first["data"], other["data"]
    if list(data) != list(others):
        reasons.append(f"other data sets: {', '.join(others)}, not {', '.join(data)}")
    else:
        changed = [name for name in data if data[name] != others[name]]
        if changed:
            reasons.append(f"other pictures or texts in {', '.join(changed)}")
        for name in first["choices"].keys() & other["choices"].keys():
            own, its = first["choices"][name], other["choices"][name]
            reasons += [
                f"another protocol of {name}: {key} {_brief(its.get(key))}, "
                f"not {_brief(own.get(key))}"
                for key in {**own, **its}
                if own.get(key) != its.get(key)
            ]
    return "; ".join(reasons)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _rank(numbers: list[Number], sign: int = 1) -> None:
    """Mark the best of each group, or those that cannot be told from it. The best is the largest
    of `sign` times the numbers."""
    for group in dict.fromkeys(number.group for number in numbers):
        members = [n for n in numbers if n.group == group and n.interval is not None]
        if len(members) < 2:
            continue
        best = max(members, key=lambda number: sign * number.value)
        close = [n for n in members if n is not best and not leads(best, n, sign)]
        best.mark = "noise" if close else "best"
        for number in close:
            number.mark = "noise"


def leads(best: Number, other: Number, sign: int = 1) -> bool:
    """Whether a number is better by more than the interval of the difference, as if the two were
    independent. Both have intervals; `sign` is -1 where smaller is better."""
    assert best.interval is not None
    assert other.interval is not None
    near, far = (0, 1) if sign > 0 else (1, 0)  # the ends of the two that face each other
    down, up = best.value - best.interval[near], other.interval[far] - other.value
    return sign * (best.value - other.value) > math.hypot(down, up)
