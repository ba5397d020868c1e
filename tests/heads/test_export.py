"""A trained head in a bundle: in classifier.onnx, in every precision and from bytes, and named."""

import numpy as np
import onnxruntime
import pytest
import tiny
import torch

from radapter import bundle, export, merging, registry
from radapter.data.pictures import open_several
from radapter.errors import GateFailed
from radapter.export import graphs, of_run
from radapter.heads import head as heads
from radapter.inference import open_model, predict
from radapter.inference.prediction import classes_for
from radapter.merging import write_merged
from radapter.training import train

pytestmark = pytest.mark.slow  # they export

NAMES = ["blue circle", "green cross", "red square"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    model, shapes = tiny.write(folder / "model"), tiny.draw_shapes(folder / "shapes")
    settings = tiny.recipe(
        model, shapes, "method={name: frozen}", "head={name: linear, bias: true}",
        "objective=[{name: cross-entropy}]", "optimisation.epochs=8", "data.hold_out=0.3",
    )  # fmt: skip
    run = train(settings, folder / "runs")
    write_merged(run, 0.8)
    return run


@pytest.fixture(scope="module")
def exported(run):
    wanted = export.Wanted(precisions=["fp32", "fp16"], from_bytes=True)
    return export.export(export.plan(run, wanted))


def test_the_classifier_gives_the_heads_answers(run, exported):
    manifest, folder = exported.manifest, run.exported(merging.tuned_facts(run)["weights_hash"])
    assert manifest["classifier"] == NAMES
    assert manifest["head"] == {"name": "linear", "bias": True, "scale_in_weight": False}
    (compared,) = manifest["parity"]
    files = {row["file"] for row in compared["files"]}
    assert {"onnx/classifier.onnx", "onnx/classifier_fp16.onnx"} <= files
    assert all(row["passed"] for row in compared["files"])
    dataset = run.recipe().data.open()
    loaded, _ = merging.read_merged(run)
    pictures = [dataset.read(i).convert("RGB") for i in (0, 9, 17)]
    pixels = torch.stack([loaded.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        features = loaded.model.encode_image(pixels, normalize=True)
    stored = merging.open_trained(run).head
    w, b = (
        0.2 * stored[f"head_at_zero.{key}"] + 0.8 * stored[f"head.{key}"]
        for key in ("weight", "bias")
    )
    expected = (loaded.logit_scale * features @ w.T + b).softmax(1).numpy()
    for name, atol in (("onnx/classifier.onnx", 1e-4), ("onnx/classifier_fp16.onnx", 5e-3)):
        session = onnxruntime.InferenceSession(folder / name)
        found = [
            session.run(None, {"pixels": np.asarray(picture)[None]})[0][0] for picture in pictures
        ]
        np.testing.assert_allclose(found, expected, atol=atol)


def test_a_bundle_predicts_by_the_head_and_its_card_names_it(run, exported, tmp_path):
    folder = run.exported(merging.tuned_facts(run)["weights_hash"])
    torchs, onnxs = open_model(run), open_model(folder)
    assert torchs.weights_hash == onnxs.weights_hash
    pictures = open_several([run.recipe().data.root])
    ours, theirs = (
        [p.labels for p in predict(model, pictures, classes_for(model, None))]
        for model in (torchs, onnxs)
    )
    for one, two in zip(ours, theirs, strict=True):
        assert [name for name, _ in one] == [name for name, _ in two]
        np.testing.assert_allclose([s for _, s in one], [s for _, s in two], atol=1e-4)
    card = (folder / bundle.CARD).read_text()
    assert "| Head | linear (bias true, scale_in_weight false) |" in card
    assert "under `classifier`, by the trained head." in card
    assert "`head.safetensors` is the classifier that was trained with the model" in card
    assert not of_run.plan(run, export.Wanted(from_bytes=True)).written


def test_another_head_than_the_models_fails_the_gate(run, monkeypatch):
    real = graphs.classifier

    def shifted(tower, target, head, dim):
        state = {n: t + 0.1 if n == "bias" else t for n, t in head.state_dict().items()}
        state["bias"][0] += 3
        real(tower, target, registry.load(registry.HEADS, "linear").of(state), dim)

    monkeypatch.setattr(graphs, "classifier", shifted)
    planned = export.plan(run, export.Wanted(), force=True)
    with pytest.raises(GateFailed, match=r"classifier\.onnx"):
        export.export(planned)


def test_classes_that_the_head_does_not_know_are_told_apart_by_texts(run, tmp_path):
    (tmp_path / "names.txt").write_text("a dog\na cat\n")
    planned = export.plan(run, export.Wanted(classifier=str(tmp_path / "names.txt")), force=True)
    manifest = export.export(planned).manifest
    assert manifest["classifier"] == ["a dog", "a cat"]
    assert manifest["classifier_by_head"] is False


@pytest.mark.parametrize("name", registry.HEADS)
def test_every_head_is_exported(name, tmp_path):
    """In batches of other sizes than the exporter saw; some of its classes, too."""
    loaded = tiny.build()
    (tmp_path / "onnx").mkdir()
    pixels, tokens = tiny.batch(loaded)
    from radapter.export.towers import export_towers

    export_towers(
        loaded.model, tmp_path, {"pixel_values": pixels, "input_ids": tokens},
        precision="fp32", context_length=77, opset=20,
    )  # fmt: skip
    for settings in registry.load(registry.HEADS, name).EXAMPLES:
        weights, kept = torch.nn.functional.normalize(torch.randn(2, 6, 16), dim=-1)
        labels = torch.tensor([3, 0, 1, -1, 5, 5])
        start = heads.Start(weights, 14.0, lambda passes, kept=kept, own=labels: (kept, own))
        module = registry.load(registry.HEADS, name).head(start, **settings)
        own = heads.Head(list("abcdef"), module.eval().requires_grad_(False), {"name": name})
        for head in (own, own.among(["f", "b"])):
            graphs.classifier(tmp_path / bundle.VISION, tmp_path / "c.onnx", head.module, 16)
            session = onnxruntime.InferenceSession(tmp_path / "c.onnx")
            for size in (1, 2, 5):
                x = torch.randn(size, 3, 32, 32)
                with torch.no_grad():
                    features = loaded.model.encode_image(x, normalize=True)
                (found,) = session.run(["probabilities"], {"pixel_values": x.numpy()})
                np.testing.assert_allclose(found, head.logits(features).softmax(1), atol=1e-5)
