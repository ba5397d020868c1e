"""The file that tells whether texts are of pictures, beside PyTorch."""

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from evaluation.test_reranking import matching_model
from tiny_bundle import FACTS

from radapter import bundle
from radapter.errors import GateFailed, UsageError
from radapter.export import Contents, bundling, export_bundle, matching
from radapter.export.verify import likeness
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.opened import open_bundle
from radapter.runtimes.pytorch import PyTorchRuntime

TEXTS = ["a", "a very blue sea behind two green dogs", "sun"]


@pytest.fixture(scope="module")
def loaded():
    return matching_model()


@pytest.fixture(scope="module")
def written(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matching") / "bundle"
    loose = ["int8.cosine=0"]  # weights are random
    contents = Contents(precisions=("fp32", "fp16", "int8"), tolerances=loose)
    return folder, export_bundle(loaded, folder, contents, facts=FACTS), contents


@pytest.mark.slow
def test_the_file_gives_what_pytorch_gives(loaded, written):
    folder, manifest, contents = written
    files = [bundle.in_precision(bundle.MATCHING, p) for p in ("fp32", "fp16")]
    assert {file for file in manifest["models"] if "matching" in file} == {*files}
    assert [manifest["models"][file]["for"] for file in files] == [["onnxruntime"]] * 2
    assert manifest["models"][files[0]]["worst_cosine"] > 0.99999
    assert manifest["matching"] == {"file": bundle.MATCHING}
    card = (folder / bundle.CARD).read_text()
    assert f"`{bundle.MATCHING}` takes `pixel_values` and `input_ids`, a text for each" in card
    pixels, _ = tiny.batch(loaded)
    ids = loaded.tokenize(TEXTS)
    wanted = PyTorchRuntime(loaded).match(pixels, ids)
    assert (wanted[:, 1] - wanted[:, 0]).std() > 0.1
    for precision, off in (("fp32", 1e-4), ("fp16", 0.05)):
        runtime = OnnxRuntime(folder, precision=precision)
        assert "matching_model" not in runtime._towers  # it is large, and opened when asked
        assert (runtime.match(pixels, ids) - wanted).abs().max() < off
        short = runtime.match(pixels, ids[:, :11])  # it is filled up
        torch.testing.assert_close(short, runtime.match(pixels, ids))
    with pytest.raises(UsageError, match="The bundle has no matching model in int8"):
        OnnxRuntime(folder, precision="int8").match(pixels, ids)
    # With onnxruntime alone, by the bundle's own tokenizer.
    session = onnxruntime.InferenceSession(folder / bundle.MATCHING)
    given = {
        "pixel_values": pixels.numpy(),
        "input_ids": open_bundle(folder).tokenizer(TEXTS).numpy(),
    }
    (found,) = session.run(["match_logits"], given)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    planned = bundling.plan(loaded, contents=contents)
    for file in files:
        assert planned[file] == pytest.approx((folder / file).stat().st_size, rel=0.35), file


@pytest.mark.slow
def test_a_file_with_other_logits_is_not_written(loaded, tmp_path, monkeypatch):
    """As of a decoder whose scale is off by a hundredth."""

    class Wrong(matching.MatchingModel):
        def forward(self, pixel_values, input_ids):
            return 1.01 * super().forward(pixel_values, input_ids)

    monkeypatch.setattr(matching, "MatchingModel", Wrong)
    with pytest.raises(GateFailed, match=r"matching_model.onnx does not agree with PyTorch"):
        export_bundle(loaded, tmp_path / "bundle", Contents(), facts=FACTS)
    assert not (tmp_path / "bundle").exists()


def test_how_near_logits_are():
    theirs = np.array([[4.0, -8.0], [0.1, -0.2], [3.0, 3.0]], np.float32)
    ours = theirs + np.array([[0.0, 0.08], [0.0, 0.01], [0.0, 0.0]], np.float32)
    expected = [1 - 0.01**2 / 2, 1 - 0.01**2 / 2, 1.0]  # of the largest, or of 1
    np.testing.assert_allclose(likeness(ours, theirs), expected, atol=1e-6)
    assert np.isnan(likeness(theirs * np.nan, theirs)).all()


def test_a_model_without_a_head_has_no_such_file(loaded):
    plain = tiny.build(**tiny.COCA)
    assert matching.facts(plain) == {}
    assert matching.in_words({}) == ""
    assert bundle.MATCHING not in bundling.plan(plain)
    assert bundle.MATCHING in bundling.plan(loaded)
