"""The parity gate: equal engines pass, damaged ones do not."""

import copy

import pytest
import torch
import torch.nn.functional as F

from radapter import evaluation, models
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.recipe_data import FolderData
from radapter.runtimes.pytorch import PyTorchRuntime


@pytest.fixture(scope="module")
def reference(tiny_folder, shapes):
    loaded = models.load(tiny_folder)
    data = FolderData(source="folder", root=str(shapes), split="all")
    suite = Suite(
        name="mine",
        tasks=["classification"],
        datasets=[SuiteDataset(name="set", role="in-distribution", data=data)],
    )
    return evaluation.evaluate(suite, PyTorchRuntime(loaded), loaded)


def test_the_same_features_pass(reference):
    verdict = evaluation.compare(reference, copy.deepcopy(reference))
    assert verdict["passed"]
    assert verdict["cosine"]["worst"] == pytest.approx(1.0, abs=1e-12)
    assert verdict["agreement"] == 1.0
    assert all(row["difference"] == 0 for row in verdict["metrics"])


def test_one_wrong_picture_fails_and_is_named(reference):
    engine = copy.deepcopy(reference)
    features = engine.image_features["set"]
    features[7] = F.normalize(features[7] + 0.01 * torch.randn(features.shape[1]), dim=-1)
    verdict = evaluation.compare(reference, engine)
    assert not verdict["passed"]
    assert verdict["cosine"]["worst_inputs"][0][0] == f"set {reference.pictures['set'][7]}"
    expected = float(F.cosine_similarity(features[7], reference.image_features["set"][7], dim=0))
    assert verdict["cosine"]["worst"] == pytest.approx(expected, abs=1e-6)


def test_nan_features_fail(reference):
    engine = copy.deepcopy(reference)
    engine.image_features["set"][0] = torch.nan
    assert not evaluation.compare(reference, engine)["passed"]


def test_other_answers_fail_even_with_the_same_features(reference):
    engine = copy.deepcopy(reference)
    engine.predictions["set"][:] = (engine.predictions["set"] + 1) % 3
    scores = engine.metrics["set"]["accuracy"].scores
    engine.metrics["set"]["accuracy"].scores = ~scores
    verdict = evaluation.compare(reference, engine)
    assert verdict["agreement"] == 0.0
    assert any("agreement" in failure for failure in verdict["failures"])
    assert any("accuracy differs" in failure for failure in verdict["failures"])


def test_one_item_may_differ_and_two_may_not(reference):
    items = len(reference.metrics["set"]["accuracy"].scores)
    assert items < 1000  # so that one item is more than a tenth of a point
    for count, allowed in ((1, True), (2, False)):
        engine = copy.deepcopy(reference)
        scores = engine.metrics["set"]["accuracy"].scores
        wrong = (~scores).nonzero()[0][:count]
        scores[wrong] = True
        verdict = evaluation.compare(reference, engine)
        assert any("accuracy differs" in f for f in verdict["failures"]) != allowed
