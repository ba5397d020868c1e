"""eval with a cache of features: the same results, and never an engine's answers from it."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from radapter.files import file_hash
from radapter.runtimes.pytorch import PyTorchRuntime


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("RADAPTER_CACHE", str(folder))
    return folder


@pytest.fixture
def encoded(monkeypatch):
    """Batches that PyTorch has encoded."""
    batches = []
    for tower in ("encode_image", "encode_text"):
        real = getattr(PyTorchRuntime, tower)

        def counted(self, inputs, real=real):
            batches.append(len(inputs))
            return real(self, inputs)

        monkeypatch.setattr(PyTorchRuntime, tower, counted)
    return batches


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_results_are_the_same_with_and_without(cli, merged, cache, encoded):
    results = []
    for more in (["--no-cache"], [], [], ["--no-cache"]):
        encoded.clear()
        outcome = cli("eval", "--runtime", "torch", *more)
        assert outcome.code == 0, outcome.err
        (path,) = merged.evaluations.glob("held-out-*.json")
        results.append((path.read_bytes(), outcome.out))
        assert cache.exists() == (len(results) > 1)
        # The zero-shot and the merged model, a batch of pictures and one of prompts each.
        assert len(encoded) == (0 if len(results) == 3 else 4)
    assert len(set(results)) == 1
    before = files(cache)
    assert len(before) == 4
    for path in cache.iterdir():
        path.write_bytes(b"damaged")
    outcome = cli("eval", "--runtime", "torch", "--no-cache")
    assert (outcome.code, outcome.err) == (0, "")
    assert set(files(cache).values()) == {b"damaged"}
    outcome = cli("eval", "--runtime", "torch")
    assert outcome.code == 0
    assert outcome.err.count("warning: ") == outcome.err.count("computed again") == 4
    assert files(cache) == before


def test_the_curve_uses_what_eval_has_encoded(cli, merged, cache, encoded):
    assert cli("eval", "--alphas", "0:1:0.5", "--no-cache").code == 0
    path = merged.evaluations / "held-out-alphas.json"
    without = path.read_bytes()
    assert cli("eval", "--runtime", "torch").code == 0  # alpha 0 and 0.5
    encoded.clear()
    assert cli("eval", "--alphas", "0:1:0.5").code == 0
    assert len(encoded) == 2
    assert path.read_bytes() == without
    encoded.clear()
    assert cli("merge", "--alpha", "auto").code == 0
    assert len(encoded) == 2 * 8  # of eleven alphas three are known


def test_a_model_without_a_run(cli, tiny_folder, merged, cache, encoded, tmp_path, shapes):
    data = f"{{source: folder, root: {shapes}, split: all}}"
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntasks: [classification]\ndatasets:\n"
        f"  - {{name: set, role: shifted, data: {data}}}\n"
    )
    command = ["eval", "--suite", "mine.yaml", "--model", tiny_folder, "--out", "r.json"]
    results = []
    for number, more in enumerate((["--no-cache"], [], [])):
        encoded.clear()
        assert cli(*command, *more).code == 0
        assert len(encoded) == (0 if number == 2 else 2)
        results.append((tmp_path / "r.json").read_bytes())
    assert len(set(results)) == 1
    encoded.clear()
    assert cli("eval", "--suite", "mine.yaml", "--runtime", "torch").code == 0
    assert len(encoded) == 2  # the zero-shot model is that model


@pytest.mark.slow
def test_a_warm_cache_does_not_vouch_for_an_engine(cli, merged, cache):
    assert cli("export").code == 0
    assert cli("eval", "--runtime", "all").code == 0
    assert cli("eval", "--runtime", "all").code == 0
    (folder,) = (merged.path / "bundles").iterdir()
    path = folder / "onnx" / "vision_model.onnx"
    model = onnx.load(path)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT and len(weights.dims) == 2:
            values = numpy_helper.to_array(weights)
            noise = np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
            weights.CopyFrom(numpy_helper.from_array(values + noise, weights.name))
    onnx.save(model, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["onnx/vision_model.onnx"] = file_hash(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert cli("eval", "--runtime", "all").code == 3


def test_a_wrong_size_of_the_cache(cli, merged, monkeypatch):
    monkeypatch.setenv("RADAPTER_CACHE_GB", "lots")
    outcome = cli("eval", "--runtime", "torch")
    assert outcome.code == 2
    assert "RADAPTER_CACHE_GB takes gigabytes, such as 20, found 'lots'." in outcome.err
    assert cli("eval", "--runtime", "torch", "--no-cache").code == 0


def test_auto_alpha_without_the_cache(cli, trained, cache):
    assert cli("merge", "--alpha", "auto", "--no-cache").code == 0
    assert not cache.exists()
    assert cli("merge", "--alpha", "auto").code == 0
    assert any(cache.iterdir())


def test_predict_encodes_class_names_once(cli, merged, cache, shapes, monkeypatch):
    texts = []
    encode = PyTorchRuntime.encode_text

    def counted(self, tokens):
        texts.append(len(tokens))
        return encode(self, tokens)

    monkeypatch.setattr(PyTorchRuntime, "encode_text", counted)
    arguments = ("predict", next(shapes.rglob("*.png")), "--json")
    first = cli(*arguments, "--no-cache")
    assert first.code == 0, first.err
    assert not cache.exists()
    assert cli(*arguments).out == first.out
    once = sum(texts)
    assert cli(*arguments).out == first.out
    assert sum(texts) == once
    assert cli(*arguments, "--no-cache").out == first.out
    assert sum(texts) > once
