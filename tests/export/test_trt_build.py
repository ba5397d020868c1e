"""Engines really built, by TensorRT-RTX on the CPU. None is run: that needs a GPU."""

import hashlib
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_precisions as precisions
import pytest
import torch
from fake_tensorrt import GPU, VERSIONS, Fake, load_fake
from onnx import TensorProto, helper
from tiny_bundle import FACTS, make

from radapter import bundle
from radapter.errors import BrokenInput, GateFailed, MissingDependency, UsageError
from radapter.export import Contents, export_bundle
from radapter.export.trt.build import Options, build_engine, normal_gpu, read_graph
from radapter.runtimes.trt import flavours
from radapter.runtimes.trt.flavours import RTX, TENSORRT

# Not importorskip: where it should be installed, its absence is a failure.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX: tested on Linux")

PICTURES = {"pixel_values": ((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))}
TEXTS = {"input_ids": ((1, 2), (8, 77), (32, 77))}
AGAIN = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from radapter.export.trt.build import build_engine
from radapter.runtimes.trt.flavours import RTX
profile = {"pixel_values": ((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))}
print(hashlib.sha256(build_engine(Path(sys.argv[2]), profile, RTX)[0]).hexdigest())
"""


def one_node(path: Path, operator: str, domain: str = "") -> Path:
    """An ONNX file with one node, called `the-culprit`."""
    make_info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["pixel_values"], ["y"], name="the-culprit", domain=domain)],
        "graph",
        [make_info("pixel_values", TensorProto.FLOAT, [2, 4, 4])],
        [make_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid(name, 1 if name else 20) for name in {"", domain}]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_an_engine_and_its_facts(exported, capfd):
    engine, facts = build_engine(exported / bundle.VISION, PICTURES, RTX)
    content = bytes(engine)
    assert content[:4] == b"vtrt"
    assert len(content) == facts["bytes"] > (exported / bundle.VISION).stat().st_size
    assert facts["version"] == flavours.load(RTX).__version__
    assert (facts["flavour"], facts["precision"]) == ("rtx", "fp32")
    assert facts["target_gpus"] == ["8.0", "8.6", "8.9", "12.0", "12.1"]
    assert 0 < facts["build_seconds"] < 120
    assert "gpu" not in facts
    assert capfd.readouterr() == ("", "")


def test_a_second_build_has_the_same_bytes(exported):
    path = exported / bundle.VISION
    engine, _ = build_engine(path, PICTURES, RTX)
    root = Path(flavours.__file__).parents[2]
    command = [sys.executable, "-c", AGAIN, str(root), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(engine).hexdigest()


def test_an_engine_depends_on_its_weights_profile_and_targets(exported, tmp_path):
    model = onnx.load(exported / bundle.VISION)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes(len(largest.raw_data))
    onnx.save(model, tmp_path / "zeros.onnx")
    smaller = {"pixel_values": ((1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32))}
    built = [
        build_engine(exported / bundle.VISION, PICTURES, RTX, Options(gpus=("8.6",)))[0],
        build_engine(exported / bundle.VISION, PICTURES, RTX, Options(gpus=("sm86", "89")))[0],
        build_engine(exported / bundle.VISION, smaller, RTX, Options(gpus=("8.6",)))[0],
        build_engine(tmp_path / "zeros.onnx", PICTURES, RTX, Options(gpus=("8.6",)))[0],
    ]
    assert len({hashlib.sha256(engine).hexdigest() for engine in built}) == 4


def test_texts_of_any_length(exported):
    assert build_engine(exported / bundle.TEXT, TEXTS, RTX)[1]["precision"] == "fp32"


def test_int8_is_what_the_graph_says(exported, tiny, tmp_path):
    path = tmp_path / "vision_model_int8.onnx"
    precisions.quantize(tiny, exported / bundle.VISION, "pixel_values", path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("QuantizeLinear") >= 8
    assert build_engine(path, PICTURES, RTX)[1]["precision"] == "int8"


def test_fp16_is_what_the_graph_says(tmp_path):
    path = precisions.export_half(make(), tmp_path, ["pixel_values"])["pixel_values"]
    assert build_engine(path, PICTURES, RTX)[1]["precision"] == "fp16"


@pytest.mark.slow
def test_an_attention_operator_may_fall_apart(tmp_path):
    """Opset 23 has one, without an fp32 kernel in TensorRT."""
    export_bundle(make(), tmp_path / "bundle", Contents(opset=23), facts=FACTS)
    path = tmp_path / "bundle" / bundle.VISION
    assert "Attention" in {node.op_type for node in onnx.load(path).graph.node}
    assert build_engine(path, PICTURES, RTX)[1]["bytes"]


# ---------------------------------------------------------------- refusals, with node and reason


def test_an_operator_that_tensorrt_lacks(tmp_path):
    with pytest.raises(GateFailed, match=r"node 'the-culprit' \(Det\): unsupported node") as raised:
        build_engine(one_node(tmp_path / "det.onnx", "Det"), {}, RTX)
    assert any("checkDet" in line for line in raised.value.details["log"])


def test_an_operator_that_nobody_has(tmp_path):
    path = one_node(tmp_path / "own.onnx", "Wonder", "my.own")
    with pytest.raises(GateFailed, match=r"node 'the-culprit' \(Wonder\).*Plugin not found"):
        build_engine(path, {}, RTX)


def test_a_missing_profile(exported):
    with pytest.raises(GateFailed, match=r"cannot build vision_model\.onnx \(fp32\).*no optimiz"):
        build_engine(exported / bundle.VISION, {}, RTX)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (
            {"pixel_values": ((1, 3, 32, 32), (8, 3, 32, 32), (4, 3, 32, 32))},
            "refuses the shapes given for vision_model.onnx.*MIN<=OPT<=MAX",
        ),
        (
            {"pictures": ((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))},
            "cannot build vision_model.onnx.*pixel_values is missing dimensions",
        ),
    ],
    ids=["not in order", "another input"],
)
def test_a_profile_that_does_not_fit(exported, profile, said):
    with pytest.raises(GateFailed, match=said):
        build_engine(exported / bundle.VISION, profile, RTX)


def test_onnxruntimes_own_int8_is_no_graph_for_tensorrt(exported, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(exported / bundle.VISION, path, weight_type=QuantType.QInt8)
    assert "MatMulInteger" in read_graph(path).cpu_only
    with pytest.raises(GateFailed, match=r"DynamicQuantizeLinear|MatMulInteger|ConvInteger"):
        build_engine(path, PICTURES, RTX)


def test_turing_has_no_fp32(exported):
    with pytest.raises(GateFailed, match=r"node_\w+.*SM75.*FP32 GEMM is not supported"):
        build_engine(exported / bundle.VISION, PICTURES, RTX, Options(gpus=("7.5",)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(gpus=("9.0",)), r"compute capability 9\.0, only for 7\.5, 8\.0, .*12\.1"),
        (Options(gpus=("hopper",)), "write it as 8.6 or sm86"),
        (Options(hardware="ampere-plus"), "neither hardware nor version"),
        (Options(version_compatible=True), "neither hardware nor version"),
        (Options(hardware="all"), "Known: ampere-plus, none"),  # type: ignore[arg-type]
    ],
)
def test_what_the_flavour_does_not_have(exported, options, said):
    with pytest.raises(UsageError, match=said):
        build_engine(exported / bundle.VISION, PICTURES, RTX, options)


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08\x0a"])
def test_a_file_that_is_no_onnx(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises((BrokenInput, GateFailed), match=r"model\.onnx"):
        build_engine(path, PICTURES, RTX)


def test_weights_outside_of_the_folder(exported, tmp_path):
    (tmp_path / "onnx").mkdir()
    model = onnx.load(exported / bundle.VISION)
    onnx.save(
        model,
        tmp_path / "onnx" / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert build_engine(tmp_path / "onnx" / "model.onnx", PICTURES, RTX)[1]["precision"] == "fp32"
    (tmp_path / "onnx" / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    onnx.save(model, tmp_path / "onnx" / "model.onnx")
    with pytest.raises(BrokenInput, match="outside of its folder"):
        build_engine(tmp_path / "onnx" / "model.onnx", PICTURES, RTX)


def test_compute_capabilities_in_any_spelling():
    assert [normal_gpu(t) for t in ("8.6", "sm86", "86", "SM_120", "12.0")] == [
        "8.6", "8.6", "8.6", "12.0", "12.0",
    ]  # fmt: skip
    with pytest.raises(UsageError):
        normal_gpu("8.6.1")


# ---------------------------------------------------------------- what is installed


def install(monkeypatch, *modules):
    monkeypatch.setattr(flavours, "find_spec", lambda name: name in modules or None)


def test_nothing_installed_says_what_to_install(monkeypatch):
    install(monkeypatch)
    with pytest.raises(MissingDependency, match=r"radapter\[trt-rtx\].*radapter\[trt\]"):
        flavours.choose()
    with pytest.raises(MissingDependency, match=r"TensorRT is not installed.*radapter\[trt\]"):
        flavours.choose("tensorrt")
    with pytest.raises(UsageError, match="Did you mean 'tensorrt'"):
        flavours.choose("tensort")


def test_the_choice_among_both_depends_on_the_gpu(monkeypatch):
    install(monkeypatch, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(flavours.cuda, "gpus", lambda: [flavours.cuda.Gpu("a GPU", "9.0")])
    assert flavours.choose() == TENSORRT
    assert flavours.choose("rtx") == RTX

    def none():
        raise MissingDependency("no driver")

    monkeypatch.setattr(flavours.cuda, "gpus", none)
    assert flavours.choose() == RTX
    install(monkeypatch, "tensorrt")
    assert flavours.choose() == TENSORRT


def test_a_package_without_its_libraries(monkeypatch):
    def fail(name):
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(flavours.importlib, "import_module", fail)
    with pytest.raises(MissingDependency, match=r"does not load \(libnvinfer.so.10.*\[trt\]"):
        flavours.load(TENSORRT)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tensorrt_is_not_asked_for_a_builder_without_a_gpu(exported, monkeypatch):
    """It would fail in its own words, or crash."""

    class Untouched:
        __version__ = "11.4"

    monkeypatch.setattr(flavours, "load", lambda flavour: Untouched)
    with pytest.raises(MissingDependency, match="NVIDIA driver"):
        build_engine(exported / bundle.VISION, PICTURES, TENSORRT)


# ---------------------------------------------------------------- TensorRT proper: a FAKE of it


@pytest.fixture(params=[version for version, flavour in VERSIONS.items() if flavour == "tensorrt"])
def fake(request, monkeypatch):
    """TensorRT 10 or 11, neither of which can be installed here; its names are real."""
    trt = Fake(request.param)
    load_fake(monkeypatch, trt)
    return trt


def test_tensorrt_is_asked_for_a_strongly_typed_network_and_no_precision(exported, fake):
    engine, facts = build_engine(exported / bundle.VISION, PICTURES, TENSORRT)
    assert bytes(engine) == b"an engine"
    assert facts["gpu"] == {"name": GPU.name, "compute_capability": "8.9"}
    assert "target_gpus" not in facts
    assert facts["version"] == fake.__version__
    strong = 1 << fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED.value
    assert [step for step in fake.done if not step.startswith("new")] == [
        f"network {strong}",
        "parse vision_model.onnx",
        f"clear_flag({fake.BuilderFlag.TF32!r},)",
        "set_shape('pixel_values', (1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))",
        next(step for step in fake.done if step.startswith("add_optimization_profile")),
    ]


def test_compatibility_of_tensorrt(exported, fake):
    options = Options(hardware="ampere-plus", version_compatible=True)
    facts = build_engine(exported / bundle.VISION, PICTURES, TENSORRT, options)[1]
    assert (facts["hardware"], facts["version_compatible"]) == ("ampere-plus", True)
    level = fake.HardwareCompatibilityLevel.AMPERE_PLUS
    assert f"IBuilderConfig.hardware_compatibility_level = {level}" in fake.done
    assert f"set_flag({fake.BuilderFlag.VERSION_COMPATIBLE!r},)" in fake.done
    with pytest.raises(UsageError, match="for the GPU that is here"):
        build_engine(exported / bundle.VISION, PICTURES, TENSORRT, Options(gpus=("8.6",)))


@pytest.mark.parametrize("stored", [None, b"measured before", b"of another GPU"])
def test_the_timing_cache_of_tensorrt_is_kept(exported, fake, tmp_path, stored):
    path = tmp_path / "timing.cache"
    if stored:
        path.write_bytes(stored)
    build_engine(exported / bundle.VISION, PICTURES, TENSORRT, Options(timing_cache=path))
    assert path.read_bytes() == b"measured"
    caches = fake.done.count("new ITimingCache")
    assert caches == (3 if stored == b"of another GPU" else 2)


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        ("parse_from_file", GateFailed, "cannot read vision_model.onnx"),
        ("add_optimization_profile", GateFailed, "refuses the shapes.*told to fail"),
        ("build_serialized_network", GateFailed, "cannot build vision_model.onnx.*told to fail"),
        ("Builder", MissingDependency, "cannot start"),
    ],
)
def test_what_fails_in_tensorrt_is_an_error_of_ours(exported, fake, step, error, said):
    fake.__dict__["failing"] = step
    with pytest.raises(error, match=said):
        build_engine(exported / bundle.VISION, PICTURES, TENSORRT)
