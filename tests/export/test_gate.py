"""The gate bites: each way in which exports go wrong elsewhere is caught and leaves nothing."""

import copy
import functools
import json
import shutil

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import numpy_helper
from tiny_bundle import FACTS, make

from radapter import bundle, models
from radapter.errors import BrokenInput, GateFailed, UsageError
from radapter.evaluation.parity import TOLERANCES, tolerance_of
from radapter.evaluation.result import TextKey
from radapter.export import Contents, export_bundle, gate, parity_gate
from radapter.export.classes import with_head
from radapter.files import file_hash
from radapter.recipe import parse

pytestmark = pytest.mark.slow  # they export


def recipe_on(root, more=""):
    return parse(
        f"name: a\nmodel: none\nmethod: {{name: full}}\nexport: {{verify: 12}}\n{more}"
        f"data: {{source: folder, root: {root}, hold_out: 0.5, templates: ['a drawn {{}}.']}}\n"
    )


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return tiny.draw_shapes(tmp_path_factory.mktemp("pictures") / "shapes")


@pytest.fixture(scope="module")
def loaded():
    return tiny.build(quick_gelu=True)


@pytest.fixture(scope="module")
def check(loaded, shapes):
    """What an export of the model has to pass."""
    found, left_out = parity_gate(recipe_on(shapes), loaded)
    assert left_out == {}
    return found


@pytest.fixture(scope="module")
def good(loaded, check, tmp_path_factory):
    """A bundle that passed, for reading only."""
    folder = tmp_path_factory.mktemp("gate") / "bundle"
    export_bundle(loaded, folder, Contents(["fp32", "fp16"]), facts=FACTS, gate=check)
    return folder


def test_what_was_compared_is_in_the_manifest(good):
    manifest = bundle.verify(good)
    assert manifest["verified"]
    (compared,) = manifest["parity"]
    assert compared["suite"] == "held-out"
    assert 0 < compared["pictures"] <= 12
    labels = [verdict["label"] for verdict in compared["verdicts"]]
    assert labels == ["torch fp16", "onnx", "onnx fp16"]
    for verdict in compared["verdicts"]:
        assert verdict["passed"]
        assert len(verdict["cosine"]["worst_inputs"]) == 5
        assert verdict["norm"] < 1e-5
        for row in verdict["metrics"]:
            low, high = row["interval"]
            assert low <= row["difference"] <= high


def test_without_a_gate_the_manifest_says_so(tmp_path):
    manifest = export_bundle(make(), tmp_path / "bundle", facts=FACTS)
    assert manifest["verified"] is False
    assert "parity" not in manifest


# ---------------------------------------------------------------- what goes wrong elsewhere


def swapped_channels(loaded):
    weight = loaded.model.visual.conv1.weight
    weight.data = weight.data.flip(1)


def gelu(loaded):
    for module in loaded.model.modules():
        if type(module).__name__ == "QuickGELU":
            module.__class__ = Gelu


class Gelu(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x)


def noisy_layer(loaded):
    weight = loaded.model.visual.transformer.resblocks[0].mlp.c_fc.weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    weight.data += 0.02 * weight.data.std() * noise


def another_interpolation(loaded):
    loaded.config["preprocess_cfg"]["interpolation"] = "bilinear"


def wrong_mean(loaded):
    loaded.config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]


def wrong_scale(loaded):
    loaded.config["preprocess_cfg"]["std"] = [0.229, 0.224, 0.225]


MUTATIONS = [
    swapped_channels, gelu, noisy_layer, another_interpolation, wrong_mean, wrong_scale,
]  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_a_mutant_is_caught_and_leaves_nothing(loaded, check, tmp_path, mutate, request):
    """The mutant agrees with itself, so only the comparison with the right model can see it."""
    mutant = copy.deepcopy(loaded)
    mutate(mutant)
    with pytest.raises(GateFailed, match="worst cosine") as caught:
        export_bundle(mutant, tmp_path / "bundle", facts=FACTS, gate=check)
    (compared,) = caught.value.details["parity"]
    assert not compared["verdicts"][0]["passed"]
    assert list(tmp_path.iterdir()) == []


def test_an_end_token_that_is_off_by_one_is_caught(loaded, check, tmp_path, monkeypatch):
    """In the exported graph alone: it is read one token before the end of the text."""
    from radapter.export import towers

    class OffByOne(towers.TextTower):
        def forward(self, input_ids):
            end = input_ids.argmax(dim=-1, keepdim=True)
            largest = input_ids.amax(dim=-1, keepdim=True)
            places = torch.arange(input_ids.shape[1])
            one_before = torch.where(places == end - 1, largest, input_ids)
            return super().forward(torch.where(places == end, 0, one_before))

    monkeypatch.setitem(towers.GRAPHS, "text_model", OffByOne)
    # The first check, on made-up inputs, would see it too; here the suites have to.
    monkeypatch.setattr("radapter.export.bundling.check_agreement", lambda *_: None)
    with pytest.raises(GateFailed, match="onnx on held-out: worst cosine"):
        export_bundle(loaded, tmp_path / "bundle", facts=FACTS, gate=check)
    assert list(tmp_path.iterdir()) == []


def save_into(folder, file, model):
    """Put another model into a bundle that stays whole."""
    onnx.save(model, folder / file)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"][file] = file_hash(folder / file)
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))


def test_noise_in_one_weight_of_the_file_is_caught(good, check, tmp_path):
    """After the export: `eval` runs the same comparison."""
    folder = shutil.copytree(good, tmp_path / "bundle")
    model = onnx.load(folder / bundle.VISION)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(largest)
    noise = np.random.default_rng(0).normal(size=array.shape) * 0.02 * array.std()
    largest.CopyFrom(numpy_helper.from_array((array + noise).astype(array.dtype), largest.name))
    save_into(folder, bundle.VISION, model)
    with pytest.raises(GateFailed, match="onnx on held-out: worst cosine"):
        check(folder)
    loose = functools.partial(
        gate.run_gate,
        check.args[0],
        check.args[1],
        ["fp32.cosine=0.5", "fp32.agreement=0", "fp32.metric=1"],
        None,
    )
    assert all(verdict["passed"] for found in loose(folder) for verdict in found["verdicts"])


# ---------------------------------------------------------------- bytes in, probabilities out


HEAD = {"names": ["circle", "square", "ring"], "prompts": [["a circle"], ["a square"], ["a ring"]]}


@pytest.fixture(scope="module")
def further(shapes, loaded):
    """What the further files have to pass, and how to write them."""
    found, _ = parity_gate(recipe_on(shapes), loaded, (), with_head(loaded, HEAD)["head"])

    def write(folder, gate=None):
        contents = Contents(classifier=HEAD, from_bytes=True)
        return export_bundle(loaded, folder, contents, facts=FACTS, gate=gate)

    return found, write


def test_files_from_bytes_and_classifiers_are_compared(further, tmp_path):
    check, write = further
    (compared,) = write(tmp_path / "bundle", check)["parity"]
    tower, classifier = compared["files"]
    assert (tower["file"], classifier["file"]) == (bundle.FROM_BYTES, bundle.CLASSIFIER)
    assert tower["passed"]
    assert classifier["passed"]
    assert 0.99999 < tower["cosine"] <= 1
    assert classifier["agreement"] == 1.0
    assert classifier["difference"] < 0.05
    card = (tmp_path / "bundle" / bundle.CARD).read_text()
    assert f"| `{bundle.CLASSIFIER}` |" in card


def nearest(model):
    """Another interpolation in the graph."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            for attribute in node.attribute:
                if attribute.name == "mode":
                    attribute.s = b"linear"


def blue_first(model):
    node = onnx.helper.make_node("Gather", ["pixels", "order"], ["swapped"], axis=3)
    for other in model.graph.node:
        other.input[:] = ["swapped" if name == "pixels" else name for name in other.input]
    model.graph.node.insert(0, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))


def of_head(model):
    """The weights of three classes in a classifier's graph."""
    (weights,) = (
        t for t in model.graph.initializer if t.name.startswith("head/") and len(t.dims) == 2
    )
    return weights


def classes_in_another_order(model):
    weights = of_head(model)
    array = np.flip(numpy_helper.to_array(weights), list(weights.dims).index(3))
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), weights.name))


@pytest.mark.parametrize(
    ("kind", "mutate", "said"),
    [
        (bundle.FROM_BYTES, nearest, "worst cosine"),
        (bundle.FROM_BYTES, blue_first, "worst cosine"),
        (bundle.CLASSIFIER, blue_first, "worst cosine"),
        (bundle.CLASSIFIER, classes_in_another_order, ".*top-1 agreement"),
    ],
)
def test_a_further_file_that_is_wrong_is_caught(further, tmp_path, kind, mutate, said):
    check, write = further
    write(tmp_path / "bundle")
    model = onnx.load(tmp_path / "bundle" / kind)
    mutate(model)
    save_into(tmp_path / "bundle", kind, model)
    with pytest.raises(GateFailed, match=f"{kind} on held-out: {said}"):
        check(tmp_path / "bundle")


@pytest.mark.parametrize("temperature", [100.0, 5.0])
def test_a_classifier_is_judged_alike_at_every_temperature(shapes, temperature, tmp_path):
    """CLIP's own scale is 100: cosines of its probabilities would refuse sound int8 files."""
    sharp = tiny.build(quick_gelu=True)
    sharp.model.logit_scale.data.fill_(np.log(temperature))
    contents = Contents(["fp32", "int8"], classifier=HEAD, from_bytes=True)
    check, _ = parity_gate(recipe_on(shapes), sharp, (), with_head(sharp, HEAD)["head"])
    manifest = export_bundle(sharp, tmp_path / "b", contents, facts=FACTS, gate=check)
    (compared,) = manifest["parity"]
    for row in compared["files"]:
        assert row["passed"]
        assert row["cosine"] > 0.998


def test_a_temperature_that_is_wrong_is_caught(further, good, check, tmp_path):
    """Baked into a classifier, or stated in one of the three files that state it."""
    of_files, write = further
    write(tmp_path / "bundle")
    model = onnx.load(tmp_path / "bundle" / bundle.CLASSIFIER)
    weights = of_head(model)
    array = 1.02 * numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(array.astype(np.float32), weights.name))
    save_into(tmp_path / "bundle", bundle.CLASSIFIER, model)
    with pytest.raises(GateFailed, match="classifier.onnx on held-out: worst cosine"):
        of_files(tmp_path / "bundle")
    folder = shutil.copytree(good, tmp_path / "stated")
    for file in ("config.json", bundle.MANIFEST):
        text = (folder / file).read_text()
        content = json.loads(text)
        (folder / file).write_text(json.dumps({**content, "logit_scale": 1.0}))
        with pytest.raises(GateFailed, match=f"{file} says that the logit scale is 1"):
            check(folder)
        (folder / file).write_text(text)


def test_a_broken_picture_that_is_allowed_is_in_no_comparison(shapes, loaded, tmp_path):
    root = shutil.copytree(shapes, tmp_path / "shapes")
    sorted(root.rglob("*.png"))[3].write_bytes(b"broken")
    recipe = recipe_on(root)
    data = recipe.data.model_copy(update={"broken_images": 1, "split": "all", "hold_out": 0.0})
    recipe = recipe.model_copy(
        update={"data": data, "export": recipe.export.model_copy(update={"verify": 100})}
    )
    check, _ = parity_gate(recipe, loaded)
    contents = Contents(from_bytes=True)
    manifest = export_bundle(loaded, tmp_path / "bundle", contents, facts=FACTS, gate=check)
    (compared,) = manifest["parity"]
    assert compared["pictures"] == len(list(root.rglob("*.png"))) - 1
    assert [row["file"] for row in compared["files"]] == [bundle.FROM_BYTES]


# ---------------------------------------------------------------- on what, and how strictly


def test_of_eighty_prompts_a_few_are_compared(shapes, loaded):
    recipe = recipe_on(shapes)
    data = recipe.data.model_copy(update={"templates": "openai"})
    found, _ = parity_gate(recipe.model_copy(update={"data": data}), loaded)
    ((suite, _),) = found.args[1]
    (dataset,) = suite.datasets
    assert len(suite.prompts(dataset)) == 4


def test_texts_with_other_token_ids_are_counted(good, loaded):
    texts = [
        TextKey("caption", "itap: a cat"),  # as it is, and not what stands behind a colon
        TextKey("caption", "it’s “curly”"),
        TextKey("class", "Ωmega", ("a {}",)),
    ]
    found = gate.compare_tokens(good, loaded, texts)
    assert found == {"texts": 3, "different": 1, "examples": ["it’s “curly”"]}


def test_a_suite_that_is_not_there_is_named_and_held_out_data_takes_its_place(shapes, loaded):
    found, left_out = parity_gate(recipe_on(shapes, "suites: [imagenet-shifts]\n"), loaded)
    assert list(left_out) == ["imagenet-shifts"]
    assert [suite.name for suite, _ in found.args[1]] == ["held-out"]


def test_without_held_out_data_training_data_will_do(shapes, loaded):
    recipe = recipe_on(shapes)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"hold_out": 0.0})})
    found, _ = parity_gate(recipe, loaded)
    ((suite, opened),) = found.args[1]
    assert suite.name == "training"
    assert len(opened["training"]["classification"]) == 12


def test_without_any_data_it_says_how_to_go_on(tmp_path, loaded):
    with pytest.raises(BrokenInput, match="--no-verify"):
        parity_gate(recipe_on(tmp_path / "nowhere"), loaded)


def test_tolerances_can_be_changed_for_one_precision():
    changes = ["int8.cosine=0.5", "fp16.metric=0.02"]
    assert tolerance_of("int8", changes).cosine == 0.5
    assert tolerance_of("int8", changes).metric == TOLERANCES["int8"].metric
    assert tolerance_of("fp16", changes).metric == 0.02
    assert tolerance_of("fp32", changes) == TOLERANCES["fp32"]


@pytest.mark.parametrize(
    "change", ["", "cosine=1", "int8.cosine", "int8.cosine=x", "int8.norm=1", "int4.cosine=1",
               "int8.cosine=2", "int8.cosine=nan"],
)  # fmt: skip
def test_a_tolerance_that_is_none(change):
    with pytest.raises(UsageError, match="PRECISION.NAME=VALUE"):
        tolerance_of("fp32", [change])


def test_weights_are_those_of_the_model(good, loaded):
    assert bundle.read_manifest(good)["weights_hash"] == models.weights_hash(
        loaded.model.state_dict()
    )
