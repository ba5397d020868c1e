"""The arithmetic behind the study's tables, on results made up by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

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
    text = tables.difference([result(0, one)], [result(0, two)], concepts, "noto", "accuracy")
    value, low, high = (float(part.strip("[],")) for part in text.split())
    assert value == pytest.approx(100 * hits[:8].sum() / 400, abs=0.051)  # printed to 0.1
    assert 0 <= low < value < high < 3
    alone = tables.cell([result(0, one)], concepts, "noto", "accuracy")
    _, low, high = (float(part.strip("[],")) for part in alone.split())
    assert high - low > 8
