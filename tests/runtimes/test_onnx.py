"""The two runtimes: equal features, and clear refusals instead of silent fallbacks."""

import builtins
import json
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_bundle import make

from radapter import bundle, models
from radapter.errors import BrokenInput, MissingDependency
from radapter.run import file_hash
from radapter.runtimes.onnx import CPU, CUDA, TENSORRT, OnnxRuntime, served, tensorrt_options
from radapter.runtimes.pytorch import PyTorchRuntime

TEXTS = ["", "a cat", "a photo of two dogs and a house", "word " * 100]


@pytest.fixture(scope="module")
def engine(exported):
    return OnnxRuntime(exported)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_pictures_agree_with_open_clip(engine, tiny, batch):
    pixels = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        features = tiny.model.encode_image(pixels).double()
    expected = features / features.norm(dim=1, keepdim=True)
    for runtime in (engine, PyTorchRuntime(tiny)):
        output = runtime.encode_image(pixels)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], TEXTS[1:2], TEXTS[:3]])
def test_texts_agree_with_open_clip_at_any_length(engine, tiny, texts):
    tokens = tiny.tokenizer(texts)
    with torch.no_grad():
        features = tiny.model.encode_text(tokens).double()
    expected = features / features.norm(dim=1, keepdim=True)
    short = models.shorten(tiny.model, tokens)
    for runtime in (engine, PyTorchRuntime(tiny)):
        for ids in (tokens, short):
            output = runtime.encode_text(ids).double()
            torch.testing.assert_close(output, expected, atol=2e-6, rtol=0)


def test_what_they_say_of_themselves(engine, tiny):
    reference = PyTorchRuntime(tiny)
    assert engine.logit_scale == pytest.approx(reference.logit_scale, rel=1e-7)
    assert engine.logit_scale == pytest.approx(
        float(tiny.model.logit_scale.detach().exp()), rel=1e-6
    )
    assert engine.provenance["weights_hash"] == reference.provenance["weights_hash"]
    assert engine.provenance["provider"] == "CPUExecutionProvider"
    assert (engine.name, engine.device, engine.precision) == ("onnx", "cpu", "fp32")
    assert (reference.name, reference.device, reference.precision) == ("pytorch", "cpu", "fp32")


def test_pytorch_leaves_the_model_as_it_was():
    loaded = make()
    loaded.model.train()
    loaded.model.visual.eval()
    before = {name: module.training for name, module in loaded.model.named_modules()}
    runtime = PyTorchRuntime(loaded)
    features = runtime.encode_text(loaded.tokenizer(["a cat"]))
    assert {name: module.training for name, module in loaded.model.named_modules()} == before
    assert not features.requires_grad
    assert all(p.requires_grad and p.grad is None for p in loaded.model.parameters())


def test_an_unknown_device_is_a_missing_dependency(tiny):
    with pytest.raises(MissingDependency, match="no device"):
        PyTorchRuntime(tiny, device="cuda:99")


def test_a_truncated_file_is_broken(bundle_copy):
    model = bundle_copy / bundle.TEXT
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(BrokenInput, match="text_model"):
        OnnxRuntime(bundle_copy)


def test_a_file_that_does_not_load_is_broken_even_with_the_right_hash(bundle_copy):
    model = bundle_copy / bundle.VISION
    model.write_bytes(model.read_bytes()[:1000])
    _rehash(bundle_copy, bundle.VISION)
    with pytest.raises(BrokenInput, match="cannot load"):
        OnnxRuntime(bundle_copy)


def test_changed_weights_change_the_features(bundle_copy, engine):
    """What runs is the file: the parity gate can see damage that the hashes do not."""
    path = bundle_copy / bundle.VISION
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    damaged = numpy_helper.to_array(largest) * np.float32(1.5)
    largest.CopyFrom(numpy_helper.from_array(damaged, largest.name))
    onnx.save(model, path)
    _rehash(bundle_copy, bundle.VISION)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cosines = (OnnxRuntime(bundle_copy).encode_image(pixels) * engine.encode_image(pixels)).sum(1)
    assert cosines.min() < 0.9999


def test_a_provider_that_is_not_there_is_refused(exported):
    with pytest.raises(MissingDependency, match=r"radapter\[gpu\]"):
        OnnxRuntime(exported, "CUDAExecutionProvider")


def test_a_provider_that_falls_back_is_refused(exported, monkeypatch):
    """onnxruntime-gpu lists CUDA on any machine, then serves from the CPU in silence."""
    import onnxruntime

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers, **more: real(
            path, options, providers=["CPUExecutionProvider"], **more
        ),
    )
    with pytest.raises(MissingDependency, match="but serves vision_model"):
        OnnxRuntime(exported, "CUDAExecutionProvider")


def test_who_runs_the_nodes_is_recorded(engine):
    """Told by onnxruntime of the graph as it runs it, after its own optimizations."""
    for tower in ("vision", "text"):
        (counted,) = engine.provenance["nodes"][tower].items()
        assert counted[0] == "CPUExecutionProvider"
        assert counted[1] > 50


class Session:
    """A FAKE of what a session with a GPU tells of its graph."""

    def __init__(self, *parts):
        self.parts = parts

    def get_provider_graph_assignment_info(self):
        def part(provider, operators):
            nodes = [SimpleNamespace(op_type=operator) for operator in operators]
            return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)

        return [part(*each) for each in self.parts]


def test_work_that_falls_to_the_cpu_is_refused():
    shapes = (CPU, ["Shape", "Gather", "Concat"])
    assert served(Session((CUDA, ["MatMul", "Add"]), shapes), CUDA, "a.onnx") == {CUDA: 2, CPU: 3}
    fused = Session((TENSORRT, ["MatMul", "Softmax"]), (CUDA, ["Add"]), shapes)
    assert served(fused, TENSORRT, "a.onnx") == {TENSORRT: 2, CUDA: 1, CPU: 3}
    with pytest.raises(MissingDependency, match=r"leaves work of a.onnx to others \(2 MatMul\)"):
        served(Session((TENSORRT, ["Reshape"]), (CUDA, ["MatMul"] * 2), shapes), TENSORRT, "a.onnx")
    with pytest.raises(MissingDependency, match=r"leaves work of a.onnx to others \(2 MatMul\)"):
        served(Session((CUDA, ["Add"]), (CPU, ["MatMul", "Shape", "MatMul"])), CUDA, "a.onnx")
    with pytest.raises(MissingDependency, match="all of it"):
        served(Session((CUDA, ["Add"]), shapes), TENSORRT, "a.onnx")
    assert served(object(), CUDA, "a.onnx") == {}


def test_tensorrt_in_onnxruntime_is_told_shapes_and_precision(exported):
    manifest = bundle.read_manifest(exported)
    options = tensorrt_options(manifest, bundle.VISION)
    assert options["trt_profile_min_shapes"] == "pixel_values:1x3x32x32"
    assert options["trt_profile_opt_shapes"] == "pixel_values:16x3x32x32"
    assert options["trt_profile_max_shapes"] == "pixel_values:64x3x32x32"
    assert options["trt_fp16_enable"] == "False"
    assert tensorrt_options(manifest, bundle.TEXT)["trt_profile_min_shapes"] == "input_ids:1x2"
    changed = {**manifest, "max_batch": 128, "text_length": "fixed"}
    text = tensorrt_options(changed, bundle.in_precision(bundle.TEXT, "fp16"))
    assert text["trt_profile_min_shapes"] == "input_ids:1x77"
    assert text["trt_profile_max_shapes"] == "input_ids:128x77"
    assert text["trt_fp16_enable"] == "True"


def test_tensorrt_without_its_libraries_is_refused(exported, monkeypatch):
    import onnxruntime

    real = onnxruntime.InferenceSession
    asked = []

    def fall_back(path, options, providers, **more):
        asked.append(providers)
        return real(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    with pytest.raises(MissingDependency, match=r"links TensorRT 10, not 11"):
        OnnxRuntime(exported, TENSORRT)
    (((provider, _), second),) = asked
    assert (provider, second) == (TENSORRT, CUDA)


@pytest.mark.gpu
@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_on_a_gpu_the_provider_serves_and_agrees(exported, tiny, provider):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    engine = OnnxRuntime(exported, provider)
    assert engine.provenance["nodes"]["vision"][provider]
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = PyTorchRuntime(tiny).encode_image(pixels)
    torch.testing.assert_close(engine.encode_image(pixels), expected, atol=1e-3, rtol=0)


def test_no_onnxruntime_names_the_line_to_type(exported, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r'pip install "radapter\[cpu\]"'):
        OnnxRuntime(exported)


def test_both_distributions_are_refused(exported, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    with pytest.raises(MissingDependency, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        OnnxRuntime(exported)


def _rehash(folder, name):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = file_hash(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
