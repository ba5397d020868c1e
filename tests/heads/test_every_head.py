"""Every head with each of its EXAMPLES: trained, resumed, searched, merged, scored, exported."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from radapter import bundle, export, merging, registry
from radapter.data import open_data
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.mixing import merge_by_gate
from radapter.evaluation.suite import held_out_suite
from radapter.heads import head as heads
from radapter.merging import write_merged
from radapter.merging.soup import soup
from radapter.runtimes.opened import from_loaded
from radapter.training import Interrupted, plan, resume, train
from radapter.training.preparing import prepare

EVERY = [
    pytest.param(name, settings, id=f"{name}-{number}")
    for name in registry.HEADS
    for number, settings in enumerate(registry.load(registry.HEADS, name).EXAMPLES)
]
ELSEWHERE = {"linear", "tip-adapter-f"}
"""Bundles of `linear` are in test_export.py, and `tip-adapter-f` has the module of `tip-adapter`"""
SEARCHED = [name for name in registry.HEADS if name in registry.defining(registry.HEADS, "search")]


@pytest.fixture
def recipe(tiny_folder, shapes):
    def make(name, settings, *more):
        return tiny.recipe(
            tiny_folder, shapes, "method={name: frozen}",
            f"head={json.dumps({'name': name, **settings})}", "objective=[{name: cross-entropy}]",
            "data.hold_out=0.3", "data.augmentation=null", "optimisation.epochs=4", *more,
        )  # fmt: skip

    return make


def held_out(run, alpha):
    trained = merging.open_trained(run)
    model = from_loaded(dataclasses.replace(trained.base, head=trained.head_at(alpha)))
    return evaluate(held_out_suite(run.recipe(), trained.classes), model).sets["held-out"]


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_a_head_is_trained_resumed_searched_and_merged(recipe, name, settings, tmp_path):
    wanted = recipe(name, settings)
    run = train(wanted, tmp_path / "one")
    trained = merging.open_trained(run)
    steps = plan(wanted).steps
    assert trained.facts["steps"] == steps
    assert (steps > 0) == (trained.facts["trained_parameters"] > 0)
    if steps:
        stops = iter([False, True])
        with pytest.raises(Interrupted) as caught:
            train(wanted, tmp_path / "two", should_stop=lambda: next(stops))
        again = resume(caught.value.run)
    else:
        again = train(wanted, tmp_path / "two")
    assert again.adapter.read_bytes() == run.adapter.read_bytes()
    found = run.path / "head-search.json"
    assert found.is_file() == (name in SEARCHED and settings.get("search", True))
    if found.is_file():
        facts = json.loads(found.read_text())
        assert facts["accuracy"] == held_out(run, 1.0).value("accuracy")
        assert facts["pictures"] == len(held_out(run, 1.0).pictures)
        assert trained.head["head.strength"] == pytest.approx(facts["strength"])
    elif "strength" in settings:
        assert trained.head["head.strength"] == settings["strength"]
    plain = evaluate(held_out_suite(run.recipe(), trained.classes), from_loaded(trained.base))
    assert torch.equal(held_out(run, 0.0).predictions, plain.sets["held-out"].predictions)
    folder, _ = write_merged(run, 0.5)
    loaded, facts = merging.read_merged(run)
    assert facts["weights_hash"] == loaded.weights_hash
    features = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    assert torch.equal(loaded.head.logits(features), trained.head_at(0.5).logits(features))
    assert heads.read(folder).names == loaded.head.names


@pytest.mark.parametrize("name", registry.HEADS)
def test_micro_batches_change_nothing(recipe, name, tmp_path):
    changes = ["data.augmentation={crop: [0.5, 1.0]}", "optimisation.eps=1e-3"]
    settings = {"search": False} if name in SEARCHED else {}
    stored = [
        load_file(train(recipe(name, settings, *changes, *micro), tmp_path).adapter)
        for micro in ([], ["optimisation.micro_batch=3"])
    ]
    for key, value in stored[0].items():
        torch.testing.assert_close(stored[1][key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in registry.HEADS if n not in ELSEWHERE])
def test_a_bundle_answers_as_its_head(recipe, name, tmp_path):
    run = train(recipe(name, {}), tmp_path)
    write_merged(run, 1.0)
    wanted = export.Wanted(precisions=["fp32", "fp16"], from_bytes=True)
    manifest = export.export(export.plan(run, wanted)).manifest
    assert manifest["head"]["name"] == name
    assert manifest["classifier_by_head"] is True
    (compared,) = manifest["parity"]
    files = {row["file"]: row for row in compared["files"]}
    assert {"onnx/classifier.onnx", "onnx/classifier_fp16.onnx"} <= set(files)
    assert all(row["passed"] for row in files.values())
    card = (run.exported(merging.tuned_facts(run)["weights_hash"]) / bundle.CARD).read_text()
    kept = "keys" in merging.open_trained(run).head_at(1.0).module.state_dict()
    assert manifest["head"].get("examples") == (16 if kept else None)
    said = "It keeps the features of 16 training pictures, 64 bytes each in fp32, 0.0 MB in all"
    assert (said in card) == kept
    assert ("on held-out data were chosen" in card) == (name in SEARCHED)


@pytest.mark.parametrize("name", ["tip-adapter", "tip-adapter-f", "xmadapter"])
def test_a_cache_holds_the_features_of_the_training_pictures(recipe, name, tmp_path):
    still = ["optimisation.lr=1e-12"]
    run = train(recipe(name, {"search": False}, *still), tmp_path)
    stored = load_file(run.adapter)
    dataset = open_data(run.recipe().data)
    trained = merging.open_trained(run)
    model = from_loaded(trained.base)
    pixels = torch.stack([model.preprocess(dataset.read(i)) for i in range(len(dataset))])
    expected = model.runtime.encode_image(pixels)
    torch.testing.assert_close(stored["head.keys"], expected, atol=1e-5, rtol=0)
    assert stored["head.labels"].tolist() == dataset.labels


def test_a_key_is_the_mean_of_augmented_pictures(recipe, tmp_path):
    settings = {"passes": 3, "search": False}
    augmented = "data.augmentation={crop: [0.5, 1.0], flip: 0.5}"
    run = train(recipe("tip-adapter", settings, augmented), tmp_path / "runs")
    parts = prepare(run.recipe())
    encode = from_loaded(parts.base).runtime.encode_image
    drawn = [
        torch.stack([parts.pairs[-number, i]["image"] for i in range(len(parts.pairs))])
        for number in (1, 2, 3)
    ]
    assert not torch.equal(drawn[0], drawn[1])
    total = sum(encode(parts.pixels(pixels)).double() for pixels in drawn)
    expected = (total / total.norm(dim=1, keepdim=True)).float()
    torch.testing.assert_close(load_file(run.adapter)["head.keys"], expected, atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match=r"head\.passes is 3, and `data.augmentation: null`"):
        train(recipe("tip-adapter", settings), tmp_path / "runs")


def test_a_picture_that_cannot_be_read_is_no_example(tiny_folder, tmp_path):
    root = tiny.draw_shapes(tmp_path / "shapes")
    (root / "red_square" / "03.png").write_bytes(b"nothing")
    wanted = tiny.recipe(
        tiny_folder, root, "method={name: frozen}", "head={name: tip-adapter}",
        "data.broken_images=1",
    )  # fmt: skip
    with pytest.raises(BrokenInput, match="data.broken_images allows 0"):
        train(wanted.model_copy(update={"data": wanted.data.model_copy(
            update={"broken_images": 0})}), tmp_path / "runs")  # fmt: skip
    run = train(wanted, tmp_path / "runs")
    (message,) = json.loads((run.path / "data.json").read_text())["broken"]
    assert "03.png" in message
    stored = load_file(run.adapter)
    (place,) = np.flatnonzero(stored["head.labels"].numpy() == -1)
    assert run.recipe().data.open().keys[place].endswith("03.png")
    assert not stored["head.keys"][place].any()


@pytest.mark.parametrize("name", ["tip-adapter", "xmadapter"])
def test_what_a_cache_cannot_do_is_said(recipe, name, tmp_path):
    with pytest.raises(UsageError, match=r"method r-adapter changes them. Give method="):
        train(recipe(name, {}, "method={name: r-adapter}"), tmp_path)
    runs = [train(recipe(name, {}, f"seed={seed}"), tmp_path) for seed in (1, 2)]
    with pytest.raises(UsageError, match="cannot be averaged"):
        soup(runs, "uniform", root=tmp_path)
    with pytest.raises(UsageError, match=f"has the head {name}: merge it by alpha"):
        merge_by_gate(runs[0], merging.open_trained(runs[0]), "dawin")
