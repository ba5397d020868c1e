"""Runs and results that were made before still open; what is made today has their form.

`tests/older` holds runs of the tiny model on drawn shapes, with results, and manifests of bundles.
"""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file, save_file

from radapter.files import facts_metadata, radapter_facts
from radapter.reporting.comparison import OF_TASKS
from radapter.run import Run

OLDER = Path(__file__).parents[1] / "older"
UNFOLDED = ("multiway", "uniadapter")
NAMES = sorted(path.name for path in OLDER.iterdir() if path.name not in UNFOLDED)
ANSWERS = {
    "uniadapter": (0.48688, 0.41499, 0.09812),
    "multiway": (0.53324, 0.43734, 0.02942),
    "linear-probe": (0.47036, 0.25576, 0.27388),
    "tip-adapter": (0.84489, 0.14898, 0.00612),
    "xmadapter": (0.46122, 0.31959, 0.21919),
}
"""Shares of red square, blue circle and green cross that the radapter which trained the run gives a
red square: at alpha 1 of heads, else at the recipe's"""
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


def answers(cli, *options):
    """The shares of `ANSWERS`, as `predict` gives them."""
    outcome = cli("predict", "shapes/red_square/00.png", "--json", *options)
    assert outcome.code == 0, outcome.err
    (picture,) = json.loads(outcome.out)["pictures"]
    shares = {label["label"]: label["probability"] for label in picture["labels"]}
    return tuple(shares[name] for name in ("red square", "blue circle", "green cross"))


def deployed(cli, name):
    """Merge the run as its answers were found."""
    if name not in UNFOLDED:
        assert cli("merge", "--alpha", "1").code == 0


@pytest.mark.parametrize("name", ANSWERS)
def test_adapters_that_do_not_fold_and_heads_made_before_give_the_same_answers(cli, older, name):
    older(name)
    deployed(cli, name)
    assert answers(cli, "--runtime", "torch") == pytest.approx(ANSWERS[name], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multiway", "tip-adapter"])
def test_a_bundle_with_a_manifest_made_before_is_read(cli, older, name):
    """The manifest is the older one, but for the hashes of files; files that it does not list are
    not there."""
    run = older(name)
    deployed(cli, name)
    outcome = cli("export", "--precision", "fp32")
    assert outcome.code == 0, outcome.err
    (folder,) = run.path.glob("bundles/*")
    before, now = read(run.path / "manifest.json"), read(folder / "manifest.json")
    assert form(before) - form(now) == set()
    assert before["weights_hash"] == now["weights_hash"]
    assert before["files"].keys() <= now["files"].keys()
    for file in now["files"].keys() - before["files"].keys():
        (folder / file).unlink()
    files = {file: now["files"][file] for file in before["files"]}
    (folder / "manifest.json").write_text(json.dumps(before | {"files": files}))
    for given in ([], ["--model", folder]):
        found = answers(cli, "--runtime", "onnx", *given)
        assert found == pytest.approx(ANSWERS[name], abs=1e-4)
    outcome = cli("eval", "--suite", "mine.yaml", "--runtime", "all", "--no-cache")
    assert outcome.code == 0, outcome.err


def test_a_bundle_of_the_first_schema_is_to_be_exported_again(cli, older, tmp_path):
    """Its towers stood without their precision."""
    files = ("config.json", "preprocessor_config.json", "tokenizer.json", "onnx/vision_model.onnx")
    first = {"schema_version": 1, "precision": "fp32", "files": dict.fromkeys(files, "0" * 64)}
    older("multiway")
    (tmp_path / "first").mkdir()
    (tmp_path / "first/manifest.json").write_text(json.dumps(first))
    outcome = cli("predict", "shapes/red_square/00.png", "--model", "first")
    assert (outcome.code, outcome.err) == (
        4,
        "error: first/manifest.json is damaged or older than this radapter: it does not say in "
        "which precisions its files are. Export the bundle again: radapter export --force --run "
        "RUN\n",
    )


@pytest.mark.parametrize("name", ["merged.json", "head.safetensors"])
def test_a_merged_model_of_a_newer_radapter_is_refused(cli, older, tmp_path, name):
    run = older("tip-adapter")
    deployed(cli, "tip-adapter")
    path = run.merged() / name
    if name == "merged.json":
        path.write_text(json.dumps(read(path) | {"schema_version": 2}))
    else:
        facts = radapter_facts(path) | {"schema_version": 2}
        save_file(load_file(path), path, metadata=facts_metadata(facts))
    outcome = cli("predict", "shapes/red_square/00.png", "--runtime", "torch")
    said = "has schema version 2; this radapter reads up to 1. Upgrade radapter."
    assert (outcome.code, outcome.err) == (4, f"error: {path.relative_to(tmp_path)} {said}\n")


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
