"""Engines in a bundle: in its manifest, up to date, all or none; by TensorRT-RTX on the CPU."""

import shutil
import sys
from pathlib import Path

import onnx_precisions as precisions
import pytest
from tiny_bundle import FACTS

from radapter import bundle, models
from radapter.errors import BrokenInput, GateFailed, UsageError
from radapter.export import export_bundle
from radapter.export.trt import engines
from radapter.export.trt.build import Options, read_graph
from radapter.files import file_hash
from radapter.runtimes.trt.flavours import RTX

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX: tested on Linux")

NAMES = ["tensorrt/text_model.rtx.engine", "tensorrt/vision_model.rtx.engine"]


def build(folder, options=None, max_batch=32, text_length=None, **kwargs):
    manifest = bundle.verify(folder)
    shapes = engines.limits(manifest | {"max_batch": max_batch}, text_length)
    chosen, _ = engines.sources(folder, manifest, shapes)
    return engines.build_engines(folder, chosen, RTX, options, **kwargs)


def contents(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}


@pytest.fixture(scope="session")
def _built(exported, tmp_path_factory):
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("built") / "bundle")
    build(folder, text_length=16)
    return folder


@pytest.fixture
def built(_built, tmp_path):
    """A bundle with engines, to change."""
    return shutil.copytree(_built, tmp_path / "bundle")


def test_engines_are_in_the_manifest(exported, built):
    manifest = bundle.verify(built)
    entries = {entry["file"]: entry for entry in manifest["engines"]}
    assert list(entries) == NAMES
    text, vision = entries.values()
    assert vision["profile"] == {
        "pixel_values": {"min": [1, 3, 32, 32], "opt": [8, 3, 32, 32], "max": [32, 3, 32, 32]}
    }
    assert text["profile"] == {"input_ids": {"min": [1, 2], "opt": [8, 16], "max": [32, 77]}}
    for name, entry in entries.items():
        assert entry["onnx_sha256"] == file_hash(built / entry["onnx"])
        assert entry["bytes"] == (built / name).stat().st_size
        assert (built / name).read_bytes()[:4] == b"vtrt"
        assert (entry["flavour"], entry["precision"]) == ("rtx", "fp32")
        assert entry["target_gpus"]
        assert entry["build_seconds"] > 0
    # nothing else has changed, and what was there is not touched by what comes after
    before = contents(exported)
    after = contents(built)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {*NAMES, bundle.MANIFEST, bundle.CARD}
    assert [path.name for path in built.parent.iterdir()] == ["bundle"]
    card = (built / bundle.CARD).read_text()
    assert "Loading an engine runs code that is in it" in card
    assert "not run" in card


def test_what_is_up_to_date_is_left_alone(built):
    before = contents(built)
    assert build(built, text_length=16)[1] == []
    assert contents(built) == before


def test_a_forced_rebuild_has_the_same_bytes(built):
    before = contents(built)
    (_, names) = build(built, text_length=16, force=True)
    assert names == NAMES
    after = contents(built)
    assert {name: after[name] for name in NAMES} == {name: before[name] for name in NAMES}


def test_other_shapes_or_targets_are_built_anew(built):
    assert build(built, text_length=20)[1] == NAMES[:1]
    assert build(built, Options(gpus=("8.6",)), text_length=20)[1] == NAMES
    assert [e["target_gpus"] for e in bundle.verify(built)["engines"]] == [["8.6"]] * 2
    assert build(built, Options(gpus=("8.6",)), text_length=20, max_batch=4)[1] == NAMES


def test_a_failed_build_leaves_the_bundle(built):
    before = contents(built)
    with pytest.raises(GateFailed, match="Turing"):
        build(built, Options(gpus=("7.5",)))
    with pytest.raises(UsageError, match="9.0"):
        build(built, Options(gpus=("9.0",)))
    assert contents(built) == before
    assert [path.name for path in built.parent.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_the_bundle(built, monkeypatch):
    before = contents(built)
    real = engines.build_engine

    def full(path, *args):
        if "vision" in path.name:
            raise OSError(28, "No space left on device")
        return real(path, *args)

    monkeypatch.setattr(engines, "build_engine", full)
    with pytest.raises(OSError, match="No space left"):
        build(built, Options(gpus=("8.6",)))
    assert contents(built) == before
    assert [path.name for path in built.parent.iterdir()] == ["bundle"]


def test_a_damaged_bundle_gets_no_engines(bundle_copy):
    manifest = bundle.verify(bundle_copy)
    chosen, _ = engines.sources(bundle_copy, manifest, engines.limits(manifest))
    (bundle_copy / bundle.TEXT).write_bytes(b"damaged")
    with pytest.raises(BrokenInput, match="damaged"):
        engines.build_engines(bundle_copy, chosen, RTX)


def test_every_precision_gets_an_engine_but_onnxruntimes_own_int8(bundle_copy, tiny):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    (bundle_copy / "tensorrt").mkdir()
    static = bundle_copy / "tensorrt" / "text_model_int8.onnx"
    precisions.quantize(tiny, bundle_copy / bundle.TEXT, "input_ids", static)
    dynamic = bundle_copy / "onnx" / "text_model_int8.onnx"
    quantize_dynamic(bundle_copy / bundle.TEXT, dynamic, weight_type=QuantType.QInt8)
    facts = bundle.read_manifest(bundle_copy)
    del facts["schema_version"], facts["files"]
    manifest = bundle.write_manifest(bundle_copy, facts)
    chosen, left_out = engines.sources(bundle_copy, manifest, engines.limits(manifest))
    assert list(left_out) == ["onnx/text_model_int8.onnx"]
    assert "for the CPU" in left_out["onnx/text_model_int8.onnx"]
    _, names = engines.build_engines(bundle_copy, chosen, RTX)
    assert names == [*NAMES[:1], NAMES[1], "tensorrt/text_model_int8.rtx.engine"]
    precision = {e["file"]: e["precision"] for e in bundle.verify(bundle_copy)["engines"]}
    assert precision["tensorrt/text_model_int8.rtx.engine"] == "int8"


def test_files_for_onnxruntime_alone_get_no_engine(bundle_copy):
    patches = bundle_copy / bundle.PATCHES
    shutil.copyfile(bundle_copy / bundle.VISION, patches)
    facts = bundle.read_manifest(bundle_copy)
    del facts["schema_version"], facts["files"]
    facts["models"][bundle.PATCHES] = {"precision": "fp32", "for": ["onnxruntime"]}
    manifest = bundle.write_manifest(bundle_copy, facts)
    chosen, left_out = engines.sources(bundle_copy, manifest, engines.limits(manifest))
    assert [source.onnx for source in chosen] == [bundle.TEXT, bundle.VISION]
    assert left_out == {bundle.PATCHES: "the bundle has it for onnxruntime alone"}
    planned = engines.plan({bundle.TEXT: 1, bundle.PATCHES: 1, bundle.QUERY: 1}, RTX)
    assert list(planned) == ["tensorrt/text_model.rtx.engine"]


def test_the_bundle_says_how_large_batches_are():
    manifest = {"context_length": 77, "max_batch": 16}
    assert engines.limits(manifest) == engines.Limits(16, 77, 77)
    assert engines.limits(manifest, 20) == engines.Limits(16, 20, 77)
    assert engines.limits(manifest, 999) == engines.Limits(16, 77, 77)
    assert engines.limits(manifest | {"max_batch": 1}).usual_batch == 1


def test_inputs_of_unknown_size_are_left_out(bundle_copy):
    import onnx

    path = bundle_copy / bundle.VISION
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    manifest = {"files": {bundle.VISION: "", bundle.TEXT: ""}, "context_length": 77, "max_batch": 4}
    chosen, left_out = engines.sources(bundle_copy, manifest, engines.limits(manifest))
    assert [source.onnx for source in chosen] == [bundle.TEXT]
    assert "height" in left_out[bundle.VISION]


# ---------------------------------------------------------------- models of real size


def engines_of(loaded, folder: Path, source: Path, name: str, twice=()) -> dict[str, dict]:
    """An fp32, an fp16 and an int8 engine of one tower; their facts by precision.

    Those of the precisions in `twice` are built twice, and have to have the same bytes.
    """
    files = [
        source,
        precisions.export_half(loaded, folder, [name])[name],
        precisions.quantize(loaded, source, name, folder / f"{source.stem}_int8.onnx"),
    ]
    done = {}
    for path in files:
        profile, unknown = engines._profile(read_graph(path).inputs, engines.Limits(32, 77, 77))
        assert not unknown
        engine, facts = engines.build_engine(path, profile, RTX)
        assert bytes(engine)[:4] == b"vtrt"
        assert facts["bytes"] > path.stat().st_size
        done[facts["precision"]] = facts
        if facts["precision"] in twice:
            again, _ = engines.build_engine(path, profile, RTX)
            assert bytes(again) == bytes(engine)
        print(f"{path.name}: {facts['bytes'] / 1e6:.1f} MB in {facts['build_seconds']:.1f} s")
    assert set(done) == {"fp32", "fp16", "int8"}
    return done


@pytest.mark.slow
def test_the_built_in_model_in_three_precisions(tmp_path):
    loaded = models.load("pictogram-clip")
    folder = tmp_path / "bundle"
    export_bundle(loaded, folder, facts=FACTS)
    before = contents(folder)
    assert build(folder)[1] == NAMES
    assert (
        bundle.verify(folder)["files"].items()
        >= {name: value for name, value in before.items() if name.endswith(".onnx")}.items()
    )
    for path, name in ((bundle.VISION, "pixel_values"), (bundle.TEXT, "input_ids")):
        twice = ("fp32", "fp16", "int8")
        done = engines_of(loaded, tmp_path, folder / path, name, twice)
        assert done["fp16"]["bytes"] < 0.7 * done["fp32"]["bytes"]
        assert done["int8"]["bytes"] < done["fp32"]["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixel_values", "input_ids"])
def test_vit_b_32_in_three_precisions(tmp_path, name):
    """Random weights; what matters is that its graphs build at their size."""
    import open_clip
    import torch

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    with torch.no_grad():  # biases of zero would be left out of the graphs
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.01 * torch.randn_like(parameter))
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    loaded = models.LoadedModel("ViT-B-32", model.eval(), tokenizer, preprocess, {})
    source = precisions.export_single(loaded, tmp_path, name)
    done = engines_of(loaded, tmp_path, source, name)
    megabytes = {precision: facts["bytes"] / 1e6 for precision, facts in done.items()}
    expected = {
        "pixel_values": {"fp32": 354, "fp16": 187, "int8": 109},
        "input_ids": {"fp32": 257, "fp16": 133, "int8": 154},
    }[name]
    assert megabytes == pytest.approx(expected, rel=0.1)
