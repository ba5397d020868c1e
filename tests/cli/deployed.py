"""What holds of every run with a bundle, whatever was trained."""

import json

import pytest


def predicts_alike(cli, shapes):
    """PyTorch and the engine give a picture the same probabilities."""
    picture = next(shapes.rglob("*.png"))
    shares = []
    for runtime in ("torch", "onnx"):
        predicted = cli("predict", picture, "--json", "--runtime", runtime)
        assert predicted.code == 0, predicted.err
        labels = json.loads(predicted.out)["pictures"][0]["labels"]
        shares.append({label["label"]: label["probability"] for label in labels})
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)


def all_else_works(cli, run, shapes):
    """The commands that read the run and its bundle."""
    for words in (
        ("embed", shapes, "--out", "f.safetensors"),
        ("search", "a red square", "--in", "f.safetensors"),
        ("bench", "--rounds", "1", "--seconds", "0", "--batch", "1"),
        ("compare", run.name),
        ("report", "--out", "r.html"),
    ):
        outcome = cli(*words)
        assert outcome.code == 0, outcome.err
