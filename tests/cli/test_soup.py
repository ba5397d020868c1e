"""`radapter soup`: a run folder that every other command takes, and what it says of itself."""

import json
import shutil
from pathlib import Path

import pytest
import tiny

from radapter.run import Run
from radapter.training import train


@pytest.fixture(scope="module")
def _runs(tiny_folder, shapes, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3", "optimisation.epochs=1")
    return [train(recipe.model_copy(update={"seed": seed}), root) for seed in (1, 2, 3)]


@pytest.fixture
def runs(_runs, tmp_path):
    return [Run(shutil.copytree(r.path, tmp_path / "runs" / r.name)) for r in _runs]


def made(outcome):
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    return Run(Path(content["run"])), content["soup"]


@pytest.mark.slow
def test_a_soup_is_merged_exported_scored_and_compared(cli, runs):
    names = [run.name for run in runs]
    run, about = made(cli("soup", *names, "--rule", "model-stock", "--json"))
    assert about["rule"] == "model-stock"
    assert [r["seed"] for r in about["runs"]] == [1, 2, 3]
    outcome = cli("merge", "--json")
    assert json.loads(outcome.out)["alpha"] == 1.0
    for command in ("export", "eval"):
        outcome = cli(command, "--run", run.path)
        assert outcome.code == 0, outcome.err
    card = next((run.path / "bundles").glob("*/README.md")).read_text()
    assert f"| Averaged runs | {', '.join(names)} (model-stock) |" in card
    rows = json.loads(cli("compare", run.path, runs[0].path, "--json").out)["runs"]
    assert "model-stock soup" in {row["method"] for row in rows}
    assert cli("predict", "--help").code == 0


def test_runs_show_says_what_it_was_made_of(cli, runs):
    run, about = made(cli("soup", *(r.name for r in runs), "--rule", "greedy", "--json"))
    assert about["tried"][0]["added"] is True
    assert len(about["tried"]) == 3
    shown = cli("runs", "show", run.path)
    assert shown.code == 0, shown.err
    lines = " ".join(shown.out.split())
    assert "greedy soup of 3 runs, scored at alpha 0.5" in lines
    for name in (r.name for r in runs):
        assert name in lines
    assert "steps" not in lines
    facts = json.loads(cli("runs", "show", run.path, "--json").out)["run"]
    assert facts["soup"] == about


def test_what_greedy_scores_is_held_out_by_every_run(cli, runs, tiny_folder, shapes, tmp_path):
    small = ["optimisation.epochs=1"]
    without = train(tiny.recipe(tiny_folder, shapes, *small), tmp_path / "runs")
    others = train(tiny.recipe(tiny_folder, shapes, "data.hold_out=0.4", *small), tmp_path / "runs")
    for other, words in ((without, "has no held-out data"), (others, "holds out other pictures")):
        outcome = cli("soup", runs[0].name, other.name, "--rule", "greedy")
        assert outcome.code == 2
        assert words in " ".join(outcome.err.split())
        made_of = cli("soup", runs[0].name, other.name, "--json")
        assert made_of.code == 0
        made_of = json.loads(made_of.out)["run"]
        for chosen in (["--alpha", "auto"], ["--rule", "tpgm"], ["--rule", "vrf"]):
            outcome = cli("merge", "--run", made_of, *chosen)
            assert outcome.code == 2
            assert "hold out different pictures" in " ".join(outcome.err.split())
        assert cli("merge", "--run", made_of, "--alpha", "0.5").code == 0
    changed = ["data.hold_out=0.3", "data.augmentation=null", *small]  # of the same pictures
    again = train(tiny.recipe(tiny_folder, shapes, *changed), tmp_path / "runs")
    assert made(cli("soup", runs[0].name, again.name, "--json"))[1]["same_held_out"]
    outcome = cli("soup", runs[0].name, runs[1].name, "--ties", "add")
    assert outcome.code == 2
    assert "--ties is for --rule greedy" in outcome.err


def test_one_score_is_that_of_the_run_itself(cli, runs):
    """What greedy scores of a run alone is what `merge --alpha auto` scores at that alpha."""
    _, about = made(cli("soup", runs[0].name, runs[1].name, "--rule", "greedy", "--json"))
    alone = {about["runs"][step["run"]]["name"]: step["alone"] for step in about["tried"]}
    for run in runs[:2]:
        outcome = cli("merge", "--run", run.name, "--alpha", "auto", "--json")
        curve = json.loads(outcome.out)["choice"]["curve"]
        (point,) = (point for point in curve if point["alpha"] == 0.5)
        assert point["score"] == pytest.approx(alone[run.name])


def test_merge_by_tpgm(cli, runs):
    name = runs[0].name
    for wrong, words in (
        (["--rule", "tpgm", "--alpha", "0.3"], "--alpha is for --rule interpolate"),
        (["--norm", "l2"], "--norm is for --rule tpgm"),
    ):
        outcome = cli("merge", "--run", name, *wrong)
        assert outcome.code == 2
        assert words in " ".join(outcome.err.split())
    outcome = cli("merge", "--run", name, "--rule", "tpgm")
    assert outcome.code == 0, outcome.err
    assert "is kept" in outcome.out
    assert Path(runs[0].merged()).name == "tpgm"
    assert "merged by tpgm" in cli("runs").out
    assert cli("merge", "--run", name, "--alpha", "1").code == 0
    assert cli("eval", "--run", name, "--runtime", "torch").code == 0
    assert cli("merge", "--run", name, "--rule", "tpgm").code == 0
    outcome = cli("eval", "--run", name, "--runtime", "torch", "--json")
    (result,) = json.loads(outcome.out)["results"]
    assert set(result["models"]) == {"zero-shot", "tpgm"}
    rows = json.loads(cli("compare", name, "--json").out)["runs"]
    assert [row["method"] for row in rows] == ["zero-shot", "r-adapter", "r-adapter, tpgm"]
