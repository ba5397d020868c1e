"""The two runtimes: equal features, and clear refusals instead of silent fallbacks."""

import builtins
import json
import shutil
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_bundle import make

from radapter import bundle, models
from radapter.errors import BrokenInput, GateFailed, MissingDependency
from radapter.evaluation import of_run
from radapter.files import file_hash
from radapter.runtimes.onnx import OnnxRuntime, served
from radapter.runtimes.providers import CPU, CUDA, TENSORRT, tensorrt_options
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
    with pytest.raises(MissingDependency, match="but runs vision_model"):
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
    with pytest.raises(MissingDependency, match=r"runs parts of a.onnx elsewhere \(2 MatMul\)"):
        served(Session((TENSORRT, ["Reshape"]), (CUDA, ["MatMul"] * 2), shapes), TENSORRT, "a.onnx")
    with pytest.raises(MissingDependency, match=r"runs parts of a.onnx elsewhere \(2 MatMul\)"):
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
    (((provider, _), (second, options)),) = asked
    assert (provider, second) == (TENSORRT, CUDA)
    assert options["use_tf32"] == "0"


class Recorded:
    """A FAKE session of a GPU's provider: it serves, and keeps what it was asked."""

    def __init__(self, real, provider, asked, fails=None):
        self.real, self.provider, self.asked, self.fails = real, provider, asked, fails

    def get_providers(self):
        return [self.provider]

    def get_inputs(self):
        return self.real.get_inputs()

    def get_outputs(self):
        return self.real.get_outputs()

    def run(self, names, inputs):
        (values,) = inputs.values()
        self.asked.append(values.shape)
        if self.fails:
            raise self.fails
        return self.real.run(names, inputs)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """`on_a_gpu(provider)`: sessions seem to run there. Returns what they were opened with, and the
    shapes that they were run on."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    def make_it_seem(provider, fails=None):
        opened, shapes = [], []

        def session(path, options, providers, **more):
            opened.append((providers, more))
            return Recorded(real(path, options, providers=[CPU]), provider, shapes, fails)

        def preload():
            print("Failed to load libcurand.so.10")

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        return opened, shapes

    return make_it_seem


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_fp32_is_no_tf32_and_nothing_falls_back(exported, on_a_gpu, provider, capsys):
    opened, _ = on_a_gpu(provider)
    engine = OnnxRuntime(exported, provider, index=1)
    for providers, more in opened:
        assert more["enable_fallback"] == 0
        for name, options in providers:
            assert options["device_id"] == "1"
            if name == CUDA:
                assert options["use_tf32"] == "0"
                assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert engine.device == "cuda:1"
    assert capsys.readouterr().out == ""  # else --json is no JSON


@pytest.mark.parametrize(("forbidden", "said"), [(None, "TF32"), ("1", "TF32"), ("0", None)])
def test_tensorrt_in_onnxruntime_says_that_it_may_use_tf32(
    exported, on_a_gpu, monkeypatch, forbidden, said
):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if forbidden:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", forbidden)
    on_a_gpu(TENSORRT)
    engine = OnnxRuntime(exported, TENSORRT)
    assert engine.provenance.get("arithmetic") == said
    assert of_run._judged_as(engine) == ("fp16" if said else "fp32")
    on_a_gpu(CUDA)
    assert "arithmetic" not in OnnxRuntime(exported, CUDA).provenance


def test_no_batch_is_larger_than_tensorrt_was_told(exported, tiny, on_a_gpu):
    """Evaluation encodes 256 texts at a time; the engine was built for 64."""
    _, shapes = on_a_gpu(TENSORRT)
    tokens = tiny.tokenizer([f"{number} cats" for number in range(150)])[:, :8]
    features = OnnxRuntime(exported, TENSORRT).encode_text(tokens)
    assert shapes == [(64, 8), (64, 8), (22, 8)]
    torch.testing.assert_close(
        features, PyTorchRuntime(tiny).encode_text(tokens), atol=2e-6, rtol=0
    )
    shapes.clear()
    pixels = torch.zeros(65, 3, 32, 32)
    assert len(OnnxRuntime(exported, TENSORRT).encode_image(pixels)) == 65
    assert [shape[0] for shape in shapes] == [64, 1]
    shapes.clear()
    on_a_gpu(CUDA)[1].clear()
    assert len(OnnxRuntime(exported, CUDA).encode_image(pixels)) == 65


def test_a_session_that_fails_says_on_what(exported, on_a_gpu):
    on_a_gpu(CUDA, RuntimeError("EP_FAIL: bad\n shape"))
    engine = OnnxRuntime(exported, CUDA)
    with pytest.raises(
        GateFailed, match=r"fails on pixel_values of shape \[2, 3, 32, 32\]: EP_FAIL"
    ):
        engine.encode_image(torch.zeros(2, 3, 32, 32))
    on_a_gpu(CUDA, RuntimeError("CUDA failure 2: out of memory"))
    engine = OnnxRuntime(exported, CUDA)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.encode_image(torch.zeros(2, 3, 32, 32))


def test_the_library_that_is_missing_is_named(exported, monkeypatch):
    import ctypes

    import onnxruntime

    def absent(path, *_):
        assert path.endswith(("providers_cuda.so", "providers_cuda.dll"))
        raise OSError("libcurand.so.10: cannot open shared object file: No such file or directory")

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers, **more: real(path, options, providers=[CPU]),
    )
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(MissingDependency, match=r"libcurand.so.10: cannot open.*radapter\[gpu\]"):
        OnnxRuntime(exported, CUDA)

    def refused(path, options, providers, **more):
        raise ValueError("CUDA_PATH is set but CUDA wasn't able to be loaded")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refused)
    with pytest.raises(MissingDependency, match=r"CUDA_PATH is set.*\(libcurand.so.10"):
        OnnxRuntime(exported, CUDA)


def test_the_extra_for_gpus_brings_what_onnxruntime_needs_to_load():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (gpu,) = project["project"]["optional-dependencies"]["gpu"]
    assert gpu.startswith("onnxruntime-gpu[cuda,cudnn]>=")


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


def test_files_that_few_commands_use_are_opened_at_their_first_use(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "bundle")
    shutil.copyfile(folder / bundle.VISION, folder / bundle.PATCHES)
    facts = bundle.read_manifest(folder)
    del facts["schema_version"], facts["files"]
    bundle.write_manifest(folder, facts)
    runtime = OnnxRuntime(folder)
    assert runtime.makes_patches
    assert not runtime.makes_queries
    assert set(runtime.provenance["nodes"]) == {"vision", "text"}
    assert bundle.PATCHES in runtime.provenance["files"]
    pixels = torch.zeros(2, 3, *bundle.read_manifest(folder)["image_size"])
    assert torch.equal(runtime.encode_patches(pixels), runtime.encode_image(pixels))
    assert set(runtime.provenance["nodes"]) == {"vision", "text", "patch"}
