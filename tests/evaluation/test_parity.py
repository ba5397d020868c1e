"""The parity gate: equal engines pass, damaged ones do not."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from radapter import models
from radapter.data.sources.folder import FolderData
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.parity import compare
from radapter.evaluation.result import TextKey
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.runtimes.opened import from_loaded


@pytest.fixture(scope="module")
def reference(tiny_folder, shapes):
    loaded = models.load(tiny_folder)
    data = FolderData(source="folder", root=str(shapes), split="all")
    suite = Suite(
        name="mine",
        tasks=["classification"],
        datasets=[SuiteDataset(name="set", role="in-distribution", data=data)],
    )
    return evaluate(suite, from_loaded(loaded))


def test_the_same_features_pass(reference):
    verdict = compare(reference, copy.deepcopy(reference))
    assert verdict["passed"]
    assert verdict["cosine"]["worst"] == pytest.approx(1.0, abs=1e-12)
    assert verdict["agreement"] == 1.0
    assert all(row["difference"] == 0 for row in verdict["metrics"])


def test_one_wrong_picture_fails_and_is_named(reference):
    engine = copy.deepcopy(reference)
    features = engine.sets["set"].image_features
    features[7] = F.normalize(features[7] + 0.01 * torch.randn(features.shape[1]), dim=-1)
    verdict = compare(reference, engine)
    assert not verdict["passed"]
    assert verdict["cosine"]["worst_inputs"][0][0] == f"set {reference.sets['set'].pictures[7]}"
    true = reference.sets["set"].image_features
    expected = float(F.cosine_similarity(features[7], true[7], dim=0))
    assert verdict["cosine"]["worst"] == pytest.approx(expected, abs=1e-6)


def test_nan_features_fail(reference):
    engine = copy.deepcopy(reference)
    engine.sets["set"].image_features[0] = torch.nan
    assert not compare(reference, engine)["passed"]


def test_other_answers_fail_even_with_the_same_features(reference):
    engine = copy.deepcopy(reference)
    result = engine.sets["set"]
    result.predictions[:] = (result.predictions + 1) % 3
    assert reference.sets["set"].value("accuracy") > 0.3
    result.metrics["accuracy"].scores[:] = False
    verdict = compare(reference, engine)
    assert verdict["agreement"] == 0.0
    assert any("agreement" in failure for failure in verdict["failures"])
    assert any("accuracy differs" in failure for failure in verdict["failures"])


@pytest.mark.parametrize("metric", ["accuracy", "query_r1"])
def test_what_is_missing_is_an_error(reference, metric):
    whole, engine = copy.deepcopy(reference), copy.deepcopy(reference)
    whole.sets["set"].metrics[metric] = whole.sets["set"].metrics["accuracy"]
    engine.sets["set"].metrics.pop(metric, None)
    engine.runtime = Runtime(engine.runtime, makes_queries=True)
    with pytest.raises(KeyError, match=metric):
        compare(whole, engine)


def test_of_a_text_too(reference):
    engine = copy.deepcopy(reference)
    key, _ = engine.text_features.popitem()
    with pytest.raises(KeyError, match=key.text):
        compare(reference, engine)


def test_an_engine_without_a_file_for_queries_is_not_compared_in_them(reference):
    whole, engine = copy.deepcopy(reference), copy.deepcopy(reference)
    whole.sets["set"].metrics["query_r1"] = whole.sets["set"].metrics["accuracy"]
    whole.text_features[TextKey("query", "in blue", ("1.png",))] = torch.ones(16)
    engine.runtime = Runtime(engine.runtime, makes_queries=False)
    verdict = compare(whole, engine)
    assert verdict["passed"]
    assert [row["metric"] for row in verdict["metrics"]] == ["accuracy"]


class Runtime:
    """Another one, but for whether it makes queries."""

    def __init__(self, of, makes_queries):
        self.name, self.precision, self.logit_scale = of.name, of.precision, of.logit_scale
        self.makes_queries = makes_queries


def test_another_temperature_fails(reference):
    engine = copy.copy(reference)
    engine.runtime = copy.copy(reference.runtime)
    engine.runtime.logit_scale = 1.01 * reference.runtime.logit_scale
    (failure,) = compare(reference, engine)["failures"]
    assert failure.startswith("the logit scale is off by +1.0e-02")


@pytest.mark.parametrize(
    ("items", "wrong", "fails"),
    [(24, 3, False), (24, 8, True), (2000, 1, False), (2000, 12, True)],
)
def test_a_metric_fails_when_it_surely_differs(reference, items, wrong, fails):
    """Three near ties of 24 that tip over are 12.5 points, and no evidence: drawn anew with
    replacement, 24 items hold none of the three in 3.5 % of the cases."""
    engine, ours = copy.deepcopy(reference), copy.deepcopy(reference)
    item = ours.sets["set"].metrics["accuracy"]
    item.scores, item.clusters = np.ones(items, bool), np.arange(items)
    changed = engine.sets["set"].metrics["accuracy"]
    changed.scores, changed.clusters = item.scores.copy(), item.clusters
    changed.scores[:wrong] = False
    verdict = compare(ours, engine)
    (row,) = (row for row in verdict["metrics"] if row["metric"] == "accuracy")
    assert row["difference"] == pytest.approx(-wrong / items)
    assert any("accuracy differs" in failure for failure in verdict["failures"]) == fails


def test_a_loss_too_small_for_any_one_set_shows_in_their_mean(reference):
    """Of 40 sets each loses one item of 24: no set is sure, their mean is."""
    ours, engine = copy.deepcopy(reference), copy.deepcopy(reference)
    for evaluated, right in ((ours, 24), (engine, 23)):
        (result,) = evaluated.sets.values()
        item = result.metrics["accuracy"]
        evaluated.sets = {}
        (described,) = evaluated.suite.datasets
        names = [f"set {number}" for number in range(40)]
        datasets = [described.model_copy(update={"name": name}) for name in names]
        evaluated.suite = evaluated.suite.model_copy(update={"datasets": datasets})
        for number in range(40):
            own = copy.copy(item)
            own.scores = np.arange(24) < right
            own.clusters = np.arange(24) + 24 * number
            metrics = {"accuracy": own}
            evaluated.sets[f"set {number}"] = replace(result, metrics=metrics)
    (failure,) = (f for f in compare(ours, engine)["failures"] if "differs" in f)
    assert failure.startswith("mean of 40 accuracy differs by -4.17")
