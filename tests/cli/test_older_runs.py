"""Runs and results that were made before still open; what is made today has their form.

`tests/older` holds runs of the tiny model on drawn shapes, with a result and a manifest.
"""

import json
import shutil
from pathlib import Path

import pytest
import tiny

from radapter.reporting.comparison import OF_TASKS
from radapter.run import Run

OLDER = Path(__file__).parents[1] / "older"
UNFOLDED = "uniadapter"
NAMES = sorted(path.name for path in OLDER.iterdir() if path.name != UNFOLDED)
SUITE = """\
name: mine
tasks: [classification]
templates: ["a {}"]
datasets:
  - {name: own, role: in-distribution, data: {source: folder, root: shapes, split: all}}
  - {name: other, role: shifted, data: {source: folder, root: shapes, split: all}}
"""


@pytest.fixture
def older(cli, tmp_path):
    """`older(name)`: a copy of the run in a working folder that has its model and its pictures."""
    tiny.write(tmp_path / "tiny")
    tiny.draw_shapes(tmp_path / "shapes")
    (tmp_path / "caps.txt").write_text("a red thing\n")
    (tmp_path / "mine.yaml").write_text(SUITE)
    return lambda name: Run(shutil.copytree(OLDER / name, tmp_path / "runs" / name))


def form(value, at=""):
    """Every path of keys in a JSON value, those of a list's entries as one, with the type there."""
    if isinstance(value, dict):
        return {f for key, inner in value.items() for f in form(inner, f"{at}/{key}")}
    if isinstance(value, list):
        return {f for inner in value for f in form(inner, f"{at}[]")}
    return {(at, type(value).__name__)}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_made_before_is_merged(cli, older, name):
    run = older(name)
    outcome = cli("merge", "--alpha", "0.5")
    assert outcome.code == 0, outcome.err
    facts = read(run.merged() / "merged.json")
    assert facts["alpha"] == 0.5
    assert facts["weights_hash"] != facts["base_hash"]


def test_adapters_made_before_that_do_not_fold_give_the_same_answers(cli, older):
    older(UNFOLDED)
    outcome = cli("predict", "shapes/red_square/00.png", "--json", "--runtime", "torch")
    assert outcome.code == 0, outcome.err
    (picture,) = json.loads(outcome.out)["pictures"]
    shares = {label["label"]: label["probability"] for label in picture["labels"]}
    assert shares == pytest.approx(
        {"red square": 0.48688, "blue circle": 0.41499, "green cross": 0.09812}, abs=1e-4
    )


def test_results_made_before_are_compared(cli, older):
    older("full-rank"), older("lora")
    outcome = cli("compare", "runs/full-rank", "runs/lora", "--json")
    assert outcome.code == 0, outcome.err
    told = json.dumps(json.loads(outcome.out))
    assert "mine" in told
    assert cli("runs", "show", "full-rank").code == 0


@pytest.mark.slow
def test_results_and_bundles_have_the_form_of_those_made_before(cli, older):
    run = older("full-rank")
    before = {path.name: read(path) for path in run.evaluations.iterdir()}
    shutil.rmtree(run.evaluations)
    for words in (
        ["merge", "--alpha", "0.5"],
        ["export", "--precision", "fp32", "--precision", "fp16", "--precision", "int8"],
        ["eval", "--suite", "mine.yaml"],
        ["eval", "--suite", "mine.yaml", "--alphas", "0:1:0.5"],
    ):
        outcome = cli(*words)
        assert outcome.code == 0, outcome.err
    of_other_tasks = {(f"/protocol/{k}", "str") for k, t in OF_TASKS.items() if t not in SUITE}
    for name, content in before.items():
        assert form(content) - form(read(run.evaluations / name)) <= of_other_tasks, name
    (manifest,) = run.path.glob("bundles/*/manifest.json")
    assert form(read(OLDER / "full-rank" / "manifest.json")) - form(read(manifest)) == set()
