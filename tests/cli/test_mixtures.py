"""`radapter merge --rule dawin` and `vrf`: what is typed, what is said, what is refused."""

import json

import pytest
import tiny

from radapter.training import train


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--rule", "vrf", "--clusters", "3"], "--clusters is for --rule dawin, and vrf has none"),
        (["--distance", "squared"], "--distance is for --rule vrf, and interpolate has none"),
        (["--rule", "dawin", "--alpha", "auto"], "dawin is of the model at alpha 1, or at the"),
        (["--rule", "dawin", "--transductive"], "--transductive is of clusters: add --clusters 3."),
    ],
)
def test_an_option_of_another_rule_is_refused(cli, typed, message):
    outcome = cli("merge", *typed)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


@pytest.fixture
def run(tiny_folder, shapes, tmp_path):
    def trained(*settings):
        return train(
            tiny.recipe(tiny_folder, shapes, "optimisation.epochs=1", *settings), tmp_path / "runs"
        )

    return trained


def test_merge_says_how_many_models_each_picture_goes_through(cli, run):
    path = run("data.hold_out=0.3").path
    outcome = cli("merge", "--run", path, "--rule", "dawin", "--clusters", "2", "--alpha", "0.8")
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "4 models, at alpha 0, 0.8, " in said
    assert "held-out pictures of" in said
    assert "dawin-clusters-2-of-alpha-0.8" in cli("runs", "show", path).out
    outcome = cli("merge", "--run", path, "--rule", "dawin", "--json")
    facts = json.loads(outcome.out)["facts"]
    assert (facts["mixture"]["models"], facts["alpha"], facts["rule"]) == (2, 1.0, "dawin")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method={name: uniadapter}", "data.hold_out=0.3"], "does not fold into plain weights"),
        ([], "This needs held-out data of the training distribution"),
    ],
)
def test_what_has_no_two_models_or_no_held_out_data_is_refused(cli, run, settings, message):
    outcome = cli("merge", "--run", run(*settings).path, "--rule", "dawin")
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
