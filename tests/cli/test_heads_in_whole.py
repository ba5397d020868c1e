"""Heads from training to prediction: every command answers by the head."""

import json

import pytest
import tiny

from radapter.registry import HEADS
from radapter.training import train

from .deployed import all_else_works, predicts_alike

PRECISIONS = "fp32", "fp16"


@pytest.fixture(params=HEADS)
def run(request, tiny_folder, shapes, tmp_path):
    objective = "objective=[{name: cross-entropy}]"
    settings = ("method={name: frozen}", f"head={{name: {request.param}}}", objective)
    recipe = tiny.recipe(
        tiny_folder, shapes, *settings, "data.hold_out=0.3", "data.augmentation=null"
    )
    return train(recipe, tmp_path / "runs")


@pytest.mark.slow
def test_from_training_to_prediction(run, cli, shapes):
    name = run.recipe().head.name
    assert cli("merge", "--alpha", "0.8").code == 0
    refused = cli("export", "--checkpoint", "open_clip")
    assert refused.code == 2
    assert f"has no place for the head {name}, and would answer by texts" in refused.err

    precisions = [word for precision in PRECISIONS for word in ("--precision", precision)]
    exported = cli("export", "--json", *precisions)
    assert exported.code == 0, exported.out
    manifest = json.loads(exported.out)["manifest"]
    assert (manifest["head"]["name"], manifest["verified"]) == (name, True)
    files = {row["file"] for row in manifest["parity"][0]["files"]}
    assert {"onnx/classifier.onnx", "onnx/classifier_fp16.onnx"} <= files

    scored = cli("eval", "--data", shapes, "--runtime", "all", "--json")
    assert scored.code == 0, scored.err
    (result,) = json.loads(scored.out)["results"]
    assert {"onnx", "onnx fp16"} <= result["models"].keys()
    assert [found["passed"] for found in result["parity"]] == [True, True]

    predicts_alike(cli, shapes)

    all_else_works(cli, run, shapes)
