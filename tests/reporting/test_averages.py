"""Means over seeds and sets: what is averaged, with what it agrees, what is not averaged."""

import numpy as np
import pytest

from radapter import recipe as recipes
from radapter.evaluation.suite import load_suite
from radapter.reporting.averages import add_averages
from radapter.reporting.comparison import FACTS, HARMONIC, ComparedModel, Comparison, Number, _group

SUITE = "base-to-novel"
BASE = (SUITE, "in-distribution", "accuracy")
NOVEL = (SUITE, "zero-shot", "accuracy")
BOTH = (SUITE, HARMONIC, "accuracy")


def row(dataset, seed, base, novel, *overrides, zero_shot=False):
    """A run of the shipped recipe with made-up numbers, as `compare_runs` reads one."""
    recipe = recipes.load(
        recipes.locate(SUITE), [f"data.dataset={dataset}", f"seed={seed}", *overrides]
    )
    facts = dict.fromkeys(FACTS) | {
        "run": None if zero_shot else f"{dataset}-{seed}",
        "method": "zero-shot" if zero_shot else "r-adapter",
        "base_hash": "0" * 64,
        "data": None if zero_shot else f"{dataset}, base classes, 16 shots, seed {seed}",
        "alpha": None if zero_shot else 0.5,
        "seconds": None if zero_shot else 10.0 * seed,
    }
    halves = {"in-distribution": f"{dataset}-base", "zero-shot": f"{dataset}-novel"}
    data = {role: {name: f"of {name}"} for role, name in halves.items()}
    data[HARMONIC] = data["in-distribution"] | data["zero-shot"]
    protocol = {
        "head": "templates: 1",
        "harmonic_means": {dataset: list(halves.values())},
        "dataset_templates": {name: [f"a {dataset} {{}}."] for name in halves.values()},
    }
    numbers = {BASE: base, NOVEL: novel, BOTH: 2 * base * novel / (base + novel)}
    return ComparedModel(
        facts,
        {SUITE: {"base": "0" * 64, "protocol": protocol, "data": data}},
        {key: Number(value, (value - 0.01, value + 0.01)) for key, value in numbers.items()},
        recipe,
        halves={SUITE: ("in-distribution", "zero-shot")},
    )


def averaged(*rows):
    comparison = Comparison(list(rows))
    for role in ("in-distribution", "zero-shot", HARMONIC):
        _group(comparison, SUITE, role)
    add_averages(comparison)
    return comparison


def test_over_seeds():
    values = [(0.80, 0.60), (0.84, 0.50), (0.82, 0.70)]
    rows = [row("dtd", seed, *pair) for seed, pair in zip((3, 1, 2), values, strict=True)]
    comparison = averaged(*rows)
    (mean,) = comparison.averages
    assert (mean.of, mean.seeds, mean.sets) == ([0, 1, 2], [1, 2, 3], [])
    assert mean.facts["run"] == "mean of seeds 1, 2, 3"
    assert mean.facts["data"] == "dtd, base classes, 16 shots"
    assert mean.facts["seconds"] == 20.0
    for key, own in ((BASE, (0.80, 0.84, 0.82)), (NOVEL, (0.6, 0.5, 0.7))):
        assert mean.numbers[key].value == pytest.approx(np.mean(own))
        assert mean.numbers[key].deviation == pytest.approx(np.std(own, ddof=1))
        assert mean.numbers[key].interval is None
    assert mean.numbers[BOTH].value == pytest.approx(2 * 0.82 * 0.6 / 1.42)
    assert mean.numbers[BOTH].value != pytest.approx(np.mean([r.numbers[BOTH].value for r in rows]))
    assert mean.numbers[BOTH].deviation is None
    assert [number for number, _ in comparison.models()] == ["1", "2", "3", "M1"]
    assert not comparison.notes


def test_the_published_average_of_zero_shot_clip():
    """CoCoOp's table: 69.34, 74.22, 71.70 over the eleven sets, whose own numbers the suite has."""
    found = {
        name: value / 100 for name, _, value, _ in load_suite(SUITE).anchors_for("ViT-B-16:openai")
    }
    sets = [name.removesuffix("-base") for name in found if name.endswith("-base")]
    rows = [row(s, 1, found[f"{s}-base"], found[f"{s}-novel"], zero_shot=True) for s in sets]
    (mean,) = averaged(*rows).averages
    assert mean.sets == sets
    assert len(sets) == 11
    shown = [round(100 * mean.numbers[key].value, 2) for key in (BASE, NOVEL, BOTH)]
    assert shown == [69.34, 74.22, 71.70]
    assert {number.deviation for number in mean.numbers.values()} == {None}


def test_over_sets_of_the_same_seeds():
    values = {("dtd", 1): 0.5, ("eurosat", 1): 0.9, ("dtd", 2): 0.6, ("eurosat", 2): 0.8}
    rows = [row(name, seed, base, base / 2) for (name, seed), base in values.items()]
    comparison = averaged(*rows)
    assert [mean.of for mean in comparison.averages] == [[0, 2], [1, 3], [0, 1, 2, 3]]
    assert [number for number, _ in comparison.models()] == ["1", "2", "3", "M1", "4", "M2", "M3"]
    mean = comparison.averages[2]
    assert mean.facts["run"] == "mean of 2 sets, seeds 1, 2"
    assert mean.facts["data"] == "base classes, 16 shots"
    assert mean.numbers[BASE].value == pytest.approx(0.7)
    assert mean.numbers[BASE].deviation == pytest.approx(0)  # 0.7 with either seed
    assert comparison.averages[0].numbers[BASE].deviation == pytest.approx(0.05 * 2**0.5)
    assert mean.numbers[BASE].group == ""
    assert [m.numbers[BASE].group for m in comparison.averages[:2]] == ["a", "b"]
    one_seed = averaged(*rows[:2]).averages[0]
    assert one_seed.facts["run"] == "mean of 2 sets, seed 1"
    assert one_seed.numbers[BASE].deviation is None


def test_sets_of_other_seeds_are_not_averaged():
    rows = [row("dtd", 1, 0.5, 0.5), row("dtd", 2, 0.5, 0.5), row("eurosat", 1, 0.5, 0.5)]
    comparison = averaged(*rows)
    assert [mean.sets for mean in comparison.averages] == [[]]
    assert comparison.notes == [
        "No mean over sets, whose seeds (seed/shots_seed) are not the same: "
        "dtd 1/1, 2/2; eurosat 1/1."
    ]
    other = row("eurosat", 1, 0.5, 0.5, "data.shots_seed=3")
    assert not averaged(rows[0], other).averages


def test_other_recipes_are_not_averaged():
    for other in (
        row("dtd", 2, 0.5, 0.5, "optimisation.lr=1e-4"),
        row("dtd", 2, 0.5, 0.5, "data.shots=4"),
        row("eurosat", 1, 0.5, 0.5, "data.protocol=radapter-release"),
    ):
        comparison = averaged(row("dtd", 1, 0.5, 0.5), other)
        assert (comparison.averages, comparison.notes) == ([], [])
    elsewhere = row("dtd", 2, 0.5, 0.5)
    elsewhere.facts["alpha"] = 0.6
    assert not averaged(row("dtd", 1, 0.5, 0.5), elsewhere).averages
    rebased = row("eurosat", 1, 0.5, 0.5)
    rebased.facts["base_hash"] = "1" * 64
    assert not averaged(row("dtd", 1, 0.5, 0.5), rebased).averages


def test_a_seed_that_is_there_twice():
    comparison = averaged(row("dtd", 1, 0.5, 0.5), row("dtd", 1, 0.5, 0.5))
    assert not comparison.averages
    assert comparison.notes == [
        "No mean of dtd-1, dtd-1: their recipes are equal and a seed is there twice."
    ]
    comparison = averaged(*(row(n, 1, 0.5, 0.5) for n in ("dtd", "dtd", "eurosat")))
    assert (len(comparison.averages), len(comparison.notes)) == (0, 1)  # over sets neither
    mixed = [row("dtd", seed, 0.5, 0.5, f"data.shots_seed={min(seed, 2)}") for seed in (1, 2, 3)]
    assert "data.shots_seed is neither one" in averaged(*mixed).notes[0]
    fixed = [row("dtd", seed, 0.5, 0.5, "data.shots_seed=1") for seed in (1, 2, 3)]
    assert averaged(*fixed).averages[0].seeds == [1, 2, 3]


def test_numbers_that_are_not_comparable_are_in_no_mean():
    one, two = row("dtd", 1, 0.5, 0.5), row("dtd", 2, 0.7, 0.5)
    two.settings[SUITE]["data"]["in-distribution"] = {"dtd-base": "other pictures"}
    (mean,) = averaged(one, two).averages
    assert set(mean.numbers) == {NOVEL}  # and no harmonic mean without base
    two = row("dtd", 2, 0.7, 0.5)
    del two.numbers[NOVEL], two.numbers[BOTH]  # not evaluated
    assert set(averaged(one, two).averages[0].numbers) == {BASE}

    rows = [row(name, seed, 0.7, 0.5) for name in ("dtd", "eurosat") for seed in (1, 2)]
    rows[3].settings[SUITE]["data"]["in-distribution"] = {"eurosat-base": "other pictures"}
    over_sets = averaged(*rows).averages[-1]
    assert (over_sets.sets, set(over_sets.numbers)) == (["dtd", "eurosat"], {NOVEL})

    partial, elsewhere, scored = (row("eurosat", 1, 0.7, 0.5) for _ in range(3))
    partial.partial = {(SUITE, "in-distribution"), (SUITE, HARMONIC)}
    assert set(averaged(one, partial).averages[0].numbers) == {NOVEL}
    elsewhere.settings[SUITE]["data"]["in-distribution"] = {"food101-base": "of food101-base"}
    assert BASE not in averaged(one, elsewhere).averages[0].numbers
    scored.settings[SUITE]["protocol"]["head"] = "templates: 80"
    comparison = averaged(one, scored)
    assert not comparison.averages
    assert comparison.notes == [
        "No mean over dtd, eurosat: no number of whole sets by one protocol is in all."
    ]
