"""radapter bench: of a run, a bundle and a name; and how it refuses."""

import json
import shutil

import pytest

from radapter import merging
from radapter.export import Contents, export_bundle
from radapter.run import Run

pytestmark = pytest.mark.slow  # they export

QUICK = ["--rounds", "1", "--seconds", "0", "--batch", "1,2"]


@pytest.fixture(scope="module")
def _exported(_trained, tmp_path_factory):
    run = Run(shutil.copytree(_trained.path, tmp_path_factory.mktemp("runs") / _trained.name))
    merging.write_merged(run, 0.5)
    loaded, facts = merging.read_merged(run)
    named = {"base_model": "tiny", "recipe": "tiny", "method": "r-adapter", "alpha": 0.5}
    export_bundle(
        loaded, run.bundle_for(facts["weights_hash"]), Contents(["fp32", "int8"]), facts=named
    )
    return run


@pytest.fixture
def exported(_exported, tmp_path):
    return Run(shutil.copytree(_exported.path, tmp_path / "runs" / _exported.name))


def test_the_newest_run(cli, exported):
    outcome = cli("bench", *QUICK, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["ok"]
    assert result["model"] == f"{exported.name}, alpha 0.5"
    rows = [(c["runtime"], c["precision"]) for c in result["cases"] if c["device"] == "cpu"]
    assert rows == [("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")] * 4
    assert all(case["speedup"] > 0 for case in result["cases"])

    outcome = cli("bench", *QUICK, "--runtime", "torch", "--runtime", "onnx", "--threads", "2")
    assert outcome.code == 0, outcome.err
    assert "texts, batch 2" in outcome.out
    assert "left out" not in outcome.out


def test_a_bundle_alone(cli, exported):
    (folder,) = (exported.path / "bundles").iterdir()
    outcome = cli("bench", "--model", folder, "--precision", "int8", "--text-length", "9", *QUICK)
    assert outcome.code == 0, outcome.err
    assert "texts of 9 tokens" in outcome.out
    assert "left out: torch (fp32): A bundle has no weights for PyTorch" in outcome.out


def test_a_model_folder_needs_no_bundle_for_pytorch(cli, tiny_folder):
    outcome = cli("bench", "--model", tiny_folder, "--runtime", "torch", *QUICK, "--json")
    assert outcome.code == 0, outcome.err
    assert {case["runtime"] for case in json.loads(outcome.out)["cases"]} == {"torch"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch", "1,x"], 2, "--batch takes numbers of 1 or more, such as 1,32, found '1,x'"),
        (["--batch", ""], 2, "found ''"),
        (["--threads", "0"], 2, "--threads takes numbers of 1 or more"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--seconds", "-1"], 2, "--seconds"),
        (["--precision", "fp8"], 2, "--precision"),
        (["--runtime", "onxx"], 2, "Did you mean 'onnx'?"),
        (["--run", "x", "--model", "y"], 2, "--run and --model both name a model"),
        (["--model", "ViT-B-61:random"], 2, "Did you mean 'ViT-B-16'?"),
        (["--model", "TINY", "--text-length", "78", "--runtime", "torch"], 2, "2 to 77 tokens"),
        (["--model", "runs/missing"], 4, "No model folder"),
        ([], 4, "radapter train"),
    ],
)
def test_bad_options(cli, tiny_folder, arguments, code, message):
    arguments = [str(tiny_folder) if a == "TINY" else a for a in arguments]
    outcome = cli("bench", *arguments, "--json")
    assert outcome.code == code
    answer = json.loads(outcome.out)
    assert not answer["ok"]
    assert message in answer["error"]["message"]


def test_a_run_without_a_bundle(cli, merged):
    outcome = cli("bench", *QUICK)
    assert outcome.code == 4
    assert f"Type first: radapter export --run runs/{merged.name}" in outcome.err
    assert cli("bench", "--runtime", "torch", *QUICK).code == 0
    outcome = cli("bench", "--model", merged.path, *QUICK)
    assert outcome.code == 2
    assert "is a run: give it as --run" in outcome.err
