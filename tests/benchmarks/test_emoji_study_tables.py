"""The arithmetic behind the study's tables, on results made up by hand."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from radapter.reporting import study

PATH = Path(__file__).parents[2] / "benchmarks" / "emoji_study_tables.py"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("emoji_study_tables", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONCEPTS = {
    0: {"noto": {"accuracy": [10, 11, 12, 12]}},
    3: {"noto": {"accuracy": [20, 21]}},
}


def result(fold, hits, alpha=0.5, at_one="0000"):
    kept = {str(alpha): {"accuracy": hits}, "1.0": {"accuracy": at_one[: len(hits)]}}
    return {"fold": fold, "alpha": alpha, "test": {"noto": kept}}


def test_seeds_are_averaged_and_folds_stand_side_by_side(tables):
    results = [result(0, "1100"), result(3, "10", alpha=0.2), result(0, "1001")]
    (scores,), (concepts,) = tables.items(results, CONCEPTS, "noto", "accuracy")
    assert scores.tolist() == [1.0, 0.5, 0.0, 0.5, 1.0, 0.0]
    assert concepts.tolist() == [10, 11, 12, 12, 20, 21]
    (scores,), _ = tables.items(results, CONCEPTS, "noto", "accuracy", alpha=1.0)
    assert not scores.any()


def test_a_difference_is_of_the_same_items(tables):
    """Each is far from sure; that the one hits what the other hits, and one more, is not."""
    hits = np.random.default_rng(0).random(400) < 0.5
    concepts = {0: {"noto": {"accuracy": list(range(400))}}}
    one, two = ("".join("01"[int(hit)] for hit in h) for h in (hits, hits & (np.arange(400) > 7)))
    value, low, high = tables.difference(
        [result(0, one)], [result(0, two)], concepts, "noto", "accuracy"
    )
    assert value == pytest.approx(hits[:8].sum() / 400)
    assert 0 <= low < value < high < 0.03
    assert tables.percent([value, low, high], "+").startswith(f"{100 * value:+.1f} [")
    _, low, high = tables.value([result(0, one)], concepts, "noto", "accuracy")
    assert high - low > 0.08


def on_a_curve(points):
    """A run with one item a concept; `points` are (right on noto, right on unseen) of 100."""

    def first(count):
        return "1" * count + "0" * (100 - count)

    kept = {
        name: {str(i / 2): {"accuracy": first(p[role])} for i, p in enumerate(points)}
        for role, names in enumerate([["noto"], ["emojione", "emojione-monotone"]])
        for name in names
    }
    return {"fold": 0, "alpha": 0.5, "test": kept}


def test_curves_are_compared_at_equal_scores_on_noto(tables):
    sets = ["noto", "emojione", "emojione-monotone"]
    concepts = {0: {name: {"accuracy": list(range(100))} for name in sets}}
    # At 40 both keep 30. At 60 the one keeps 20, the other, which goes further, 10.
    one = [on_a_curve([(40, 30), (50, 25), (60, 20)])]
    two = [on_a_curve([(40, 30), (60, 10), (80, 0)])]
    axes = ("noto", "accuracy"), ("unseen", "accuracy")
    found, low, high = tables.above(one, two, concepts, *axes)
    assert found == pytest.approx(0.05, abs=1e-6)  # from 0 at 40 to 0.1 at 60, a straight line
    assert low < found < high
    assert tables.above(two, one, concepts, *axes)[0] == pytest.approx(-0.05, abs=1e-6)
    assert tables.above(one, one, concepts, *axes) == [0, 0, 0]
    # What falls on noto at once has no curve to compare.
    assert tables.above([on_a_curve([(40, 30), (30, 25), (20, 20)])], one, concepts, *axes) is None


def test_what_moves_all_curves_alike_is_no_doubt_about_their_distance(tables):
    """The same concepts decide x of both curves, so other concepts move both along x together."""
    sets = ["noto", "emojione", "emojione-monotone"]
    concepts = {0: {name: {"accuracy": list(range(100))} for name in sets}}

    def level(right):
        return {
            name: {"accuracy": "1" * n + "0" * (100 - n)}
            for name, n in zip(sets, right, strict=True)
        }

    def run(lost):
        by_alpha = {"0.0": level((40, 50, 50)), "1.0": level((60, 50 - lost, 50 - lost))}
        test = {name: {a: by_alpha[a][name] for a in by_alpha} for name in sets}
        return [{"fold": 0, "alpha": 1.0, "test": test}]

    axes = ("noto", "accuracy"), ("unseen", "accuracy")
    found, low, high = tables.above(run(0), run(4), concepts, *axes)
    assert found == pytest.approx(0.02, abs=1e-6)  # from 0 to 0.04, a straight line
    assert 0 <= low < found < high < 0.045  # four concepts decide it, and nothing else


def test_a_curve_that_turns_back_counts_what_it_kept_on_the_way(tables):
    x, y = np.array([0.4, 0.6, 0.5]), np.array([0.3, 0.2, 0.0])
    kept = tables._kept(x, y, np.array([0.4, 0.5, 0.6, 0.9]))
    assert kept.tolist() == pytest.approx([0.3, 0.25, 0.2, 0.2])


def test_the_summary_is_what_the_tables_print(tables, capsys):
    sets = [name for names in tables.ROLES.values() for name in names]

    def run(rising):
        def at(alpha):
            hits = {
                m: "1" * (40 + int(rising * alpha)) + "0" * (60 - int(rising * alpha))
                for m in tables.METRICS
            }
            return dict.fromkeys(sets, hits)

        scored = {str(alpha): at(alpha) for alpha in (0.0, 0.5, 1.0)}
        test = {name: {alpha: scored[alpha][name] for alpha in scored} for name in sets}
        cost = dict.fromkeys(tables.COSTS, 7.0)
        return {"fold": 0, "alpha": 0.5, "test": test, **cost}

    zero = run(0)
    zero["test"] = {name: {"0.0": hits["0.0"]} for name, hits in zero["test"].items()}
    zero |= {"alpha": 0.0, "seconds": None}
    concepts = {0: {name: {m: list(range(100)) for m in tables.METRICS} for name in sets}}
    found = {"zero-shot": [zero], "full": [run(20)], "other": [run(30)]}
    summary = tables.summarize(found, concepts, "accuracy")
    assert summary["zero-shot"]["chosen"]["accuracy"]["unseen"][0] == pytest.approx(0.4)
    assert "at_one" not in summary["zero-shot"]
    assert summary["zero-shot"]["above"] is None
    assert summary["other"]["at_one"]["accuracy"]["seen"][0] == pytest.approx(0.7)
    assert summary["other"]["difference"]["text_to_image_r1"]["noto"][0] == pytest.approx(0.05)
    assert [p["accuracy"]["noto"] for p in summary["full"]["curve"]] == pytest.approx(
        [0.4, 0.5, 0.6]
    )
    # Every score rises with alpha, so at any level the ends of the curves are compared.
    assert summary["other"]["above"]["unseen accuracy"][0] == pytest.approx(0.1)
    tables.show(summary)
    tables.show_effects(
        {**found, "r-adapter": found["full"], "r-adapter without x": found["other"]}, concepts
    )
    printed = capsys.readouterr().out
    assert "| other, alpha 1 - zero-shot | +30.0 [" in printed
    assert "| full, chosen alpha - alpha 1 | -10.0 [" in printed
    assert "| r-adapter - r-adapter without x, both at alpha 1 | -10.0 [" in printed
    assert "| other | 0.50 | 55.0 [" in printed
    assert "+5.0 [" in printed
    assert "| zero-shot | 7 | 7 | – | 7 | 7 |" in printed


def test_what_was_lost_and_gained_by_subgroup(tables, capsys):
    from radapter.data import emoji

    subgroup = [c["subgroup"] for c in emoji.concepts()]
    first, other = subgroup[0], next(name for name in subgroup if name != subgroup[0])
    of_items = [subgroup.index(first), subgroup.index(first), subgroup.index(other)]
    concepts = {0: {"noto": {"accuracy": of_items}}}
    zero = [{"fold": 0, "alpha": 0.0, "test": {"noto": {"0.0": {"accuracy": "110"}}}}]
    tuned = [{"fold": 0, "alpha": 0.5, "test": {"noto": {"1.0": {"accuracy": "011"}}}}]
    found = tables.moved(tuned, zero, concepts, "noto", "accuracy", 1.0)
    assert found == {first: (1.0, 0.0), other: (0.0, 1.0)}
    tables.show_moved({"zero-shot": zero, "full": tuned}, concepts, "noto", "accuracy")
    assert f"| full | 1 | 1 | {first} (1, 0), {other} (0, 1) |" in capsys.readouterr().out


def test_the_pages_tables_are_those_of_the_summary_that_ships(tables):
    from radapter import models

    summary = json.loads(study.PATH.read_text())
    assert summary["base_hash"] == models.load("emoji-clip").weights_hash
    page = (PATH.parents[1] / "docs" / "study-tables.md").read_text()
    parts = dict(part.split(": ", 1) for part in page.split("\n## ")[1:])
    assert set(parts) == set(summary["tables"])
    for title, table in summary["tables"].items():
        for name, method in table["methods"].items():
            for metric in tables.METRICS:
                cells = [tables.percent(method["chosen"][metric][role]) for role in tables.ROLES]
                assert f"| {' | '.join(cells)} |" in parts[title], (title, name, metric)
