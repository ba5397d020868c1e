"""Scoring a run from Python: what is looked at first, what each point says of its weights."""

import json

import pytest
import tiny

from radapter import evaluation, merging, models, scoring
from radapter.errors import BrokenInput
from radapter.training import train


@pytest.fixture(scope="module")
def run(tiny_folder, shapes, tmp_path_factory):
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3")
    run = train(recipe, tmp_path_factory.mktemp("runs"))
    merging.write_merged(run, 0.5)
    return run


def test_each_point_names_the_weights_it_was_scored_with(run):
    done = []
    suite = evaluation.held_out_suite(run.recipe())
    result = scoring.evaluate_alphas(
        run, suite, [0.0, 0.5, 1.0], on_progress=lambda *now: done.append(now)
    )
    trained = merging.open_trained(run)
    for point in result["points"]:
        weights = models.weights_hash(trained.at(point["alpha"]))
        assert point["provenance"]["weights_hash"] == weights
    assert done == [(0.0, 1, 3), (0.5, 2, 3), (1.0, 3, 3)]
    stored = json.loads((run.evaluations / "held-out-alphas.json").read_text())
    plain = json.loads(json.dumps(result, default=list))
    assert stored == {key: value for key, value in plain.items() if key != "file"}
    assert stored["chosen"] == 0.5


@pytest.mark.parametrize("score", [scoring.evaluate_run, scoring.evaluate_alphas])
def test_the_data_is_opened_before_any_model(run, tmp_path, monkeypatch, score):
    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(merging, "load", load)
    data = {"source": "folder", "root": str(tmp_path / "gone"), "split": "all"}
    suite = evaluation.Suite(
        name="mine",
        tasks=["classification"],
        datasets=[{"name": "set", "role": "shifted", "data": data}],
    )
    with pytest.raises(BrokenInput, match="gone"):
        score(run, suite)
