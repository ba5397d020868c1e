"""The TensorRT runtime against a FAKE library restricted to the real names; with a GPU, for real.

What the fake proves: the order of calls, buffers, batches, graphs and refusals. What it cannot
prove: that TensorRT computes the right thing.
"""

import json
import subprocess
import sys
from pathlib import Path

import fake_tensorrt
import pytest
import torch
from fake_tensorrt import GPU, VERSIONS, Fake, load_fake, with_engines

from radapter import bundle, models
from radapter.errors import BrokenInput, GateFailed, MissingDependency, UsageError
from radapter.files import file_hash
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.runtimes.trt import cuda, flavours, runtime
from radapter.runtimes.trt.runtime import TensorRTRuntime

SUFFIX = {"tensorrt": "trt", "rtx": "rtx"}
WITHOUT_GPU = """
import sys
sys.path.insert(0, sys.argv[1])
from radapter.errors import MissingDependency
from radapter.runtimes.trt.runtime import TensorRTRuntime
try:
    TensorRTRuntime(sys.argv[2])
except MissingDependency as error:
    print(error)
assert "tensorrt_rtx" not in sys.modules
"""
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: engines are not run here"
)


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def fake(monkeypatch, version):
    """The library, and a GPU for it."""
    trt = Fake(version)
    load_fake(monkeypatch, trt)
    return trt


@pytest.fixture
def folder(exported, tmp_path, fake, version):
    changes = {"version": fake.__version__}
    return with_engines(exported, tmp_path / "bundle", VERSIONS[version], **changes)


@pytest.mark.parametrize("batch", [1, 3, 4, 9])
def test_pictures_come_back_right_whatever_the_batch(folder, tiny, batch):
    pixels = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
    engine, expected = TensorRTRuntime(folder), PyTorchRuntime(tiny).encode_image(pixels)
    for _ in range(4):  # plain, plain and captured, then replayed
        output = engine.encode_image(pixels)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected, atol=2e-6, rtol=0)


def test_texts_of_every_length_in_turn(folder, tiny):
    engine, reference = TensorRTRuntime(folder), PyTorchRuntime(tiny)
    for texts in (["a cat"], ["word " * 100, "", "a dog"], ["one"] * 6, ["a cat"]) * 3:
        tokens = models.shorten(tiny.model, tiny.tokenizer(texts))
        torch.testing.assert_close(
            engine.encode_text(tokens), reference.encode_text(tokens), atol=2e-6, rtol=0
        )


def test_a_shape_that_comes_again_gets_a_graph(folder, fake, version):
    engine = TensorRTRuntime(folder)
    pixels = torch.randn(2, 3, 32, 32)
    fake.done.clear()
    outputs = [engine.encode_image(pixels) for _ in range(4)]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    if VERSIONS[version] == "rtx":  # which is told to do it by itself
        assert fake.done.count("run") == 4
        assert "capture" not in fake.done
    else:
        assert fake.done.count("capture") == 1
        assert fake.done[-4:] == ["replay", "synchronize"] * 2
    engine = TensorRTRuntime(folder, graphs=False)
    fake.done.clear()
    for _ in range(4):
        engine.encode_image(pixels)
    assert fake.done == ["run", "synchronize"] * 4


def test_all_contexts_of_a_tower_share_the_memory_of_activations(folder, fake, version):
    if VERSIONS[version] == "rtx":
        pytest.skip("it has one context")
    engine = TensorRTRuntime(folder)
    for batch in (1, 1, 2, 2, 3, 3):  # three graphs
        engine.encode_image(torch.randn(batch, 3, 32, 32))
    given = [step for step in fake.done if step.startswith("memory ")]
    assert len(given) == 5  # a context a tower, and one a graph
    assert len(set(given)) == 2  # one buffer a tower


def test_rtx_is_told_to_capture(monkeypatch, exported, tmp_path):
    trt = Fake("rtx-1.7")
    load_fake(monkeypatch, trt)
    TensorRTRuntime(with_engines(exported, tmp_path / "bundle", "rtx"))
    strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert trt.done.count(f"IRuntimeConfig.cuda_graph_strategy = {strategy}") == 2


def test_a_graph_survives_other_shapes(folder, tiny):
    engine, reference = TensorRTRuntime(folder), PyTorchRuntime(tiny)
    for batch in (2, 2, 2, 3, 2, 1, 4, 2, 3, 3, 3, 2):
        pixels = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        expected = reference.encode_image(pixels)
        torch.testing.assert_close(engine.encode_image(pixels), expected, atol=2e-6, rtol=0)


def test_buffers_of_few_shapes_are_kept(folder, tiny):
    engine = TensorRTRuntime(folder)
    tokens = tiny.tokenizer(["a cat"])
    for length in range(6, 40):
        engine.encode_text(tokens[:, :length])
    assert len(engine._towers["text_model"]._slots) == runtime.SLOTS


def test_texts_of_about_one_length_share_buffers(folder, tiny):
    """Or else each batch of texts would need buffers, and a graph, of its own."""
    engine, reference = TensorRTRuntime(folder), PyTorchRuntime(tiny)
    for length in range(3, 9):
        tokens = tiny.tokenizer(["a"])[:, :length]
        torch.testing.assert_close(
            engine.encode_text(tokens), reference.encode_text(tokens), atol=2e-6, rtol=0
        )
    assert list(engine._towers["text_model"]._slots) == [(1, 8)]
    engine.encode_text(tiny.tokenizer(["word " * 100]))  # 77, which is no multiple, is the longest
    assert list(engine._towers["text_model"]._slots)[-1] == (1, 77)


def test_what_it_says_of_itself(folder, fake, tiny, version):
    engine = TensorRTRuntime(folder)
    assert (engine.name, engine.device, engine.precision) == ("tensorrt", "cuda", "fp32")
    assert engine.logit_scale == pytest.approx(PyTorchRuntime(tiny).logit_scale, rel=1e-6)
    title = "TensorRT-RTX" if VERSIONS[version] == "rtx" else "TensorRT"
    assert engine.provenance["provider"] == f"{title} {fake.__version__}"
    assert engine.provenance["device_name"] == GPU.name
    assert engine.provenance["weights_hash"] == bundle.read_manifest(folder)["weights_hash"]
    assert all(file_hash(folder / f) == h for f, h in engine.provenance["files"].items())


# ---------------------------------------------------------------- refusals


def test_a_changed_engine_is_not_loaded(folder, fake, version):
    path = folder / "tensorrt" / f"vision_model.{SUFFIX[VERSIONS[version]]}.engine"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BrokenInput, match="damaged"):
        TensorRTRuntime(folder)
    assert not fake.done


def test_an_engine_of_another_onnx_file_is_stale(folder, fake):
    manifest = json.loads((folder / "manifest.json").read_text())
    fresh = manifest["engines"][1].copy()
    for change in ({"onnx_sha256": "0" * 64}, {"data_sha256": "0" * 64}):
        manifest["engines"][1] = fresh | change
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BrokenInput, match="stale.*radapter export --trt"):
            TensorRTRuntime(folder)
    assert not fake.done


@pytest.mark.parametrize(
    ("version", "gpu", "changes", "said"),
    [
        ("rtx-1.7", GPU, {"version": "1.6.0.1"}, "built by TensorRT-RTX 1.6.0.1, but 1.7"),
        ("11.4", GPU, {"version": "10.16.1.11"}, "built by TensorRT 10.16.1.11, but 11.4"),
        ("11.4", GPU, {"version": "11.9.0.1", "version_compatible": True}, "but 11.4"),
        (
            "rtx-1.7", cuda.Gpu("A10", "8.0"), {},
            r"for compute capability 8.6, 8.9, but .*A10 \(8.0\).*flavour rtx --trt-gpu 8.0",
        ),
        ("rtx-1.7", cuda.Gpu("H100", "9.0"), {}, r"H100 \(9.0\).*does not build for it.*tensorrt"),
        ("11.4", cuda.Gpu("NVIDIA L4", "8.9"), {}, r"for NVIDIA Fake 4090 \(8.9\), but .* NVID"),
        ("11.4", cuda.Gpu("A10", "8.6"), {"hardware": "same-compute-capability"}, "the GPU is A10"),
        ("11.4", cuda.Gpu("T4", "7.5"), {"hardware": "ampere-plus"}, "the GPU is T4"),
    ],
)  # fmt: skip
def test_another_version_or_gpu(monkeypatch, exported, tmp_path, version, gpu, changes, said):
    trt = Fake(version)
    load_fake(monkeypatch, trt)
    monkeypatch.setattr(cuda, "gpu", lambda index: gpu)
    changes = {"version": trt.__version__} | changes
    folder = with_engines(exported, tmp_path / "bundle", VERSIONS[version], **changes)
    with pytest.raises(BrokenInput, match=said) as raised:
        TensorRTRuntime(folder)
    assert "radapter export --trt --trt-flavour" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not trt.done


@pytest.mark.parametrize(
    ("gpu", "changes"),
    [
        (cuda.Gpu("NVIDIA L4", "8.9"), {"hardware": "same-compute-capability"}),
        (cuda.Gpu("H100", "9.0"), {"hardware": "ampere-plus"}),
        (GPU, {"version": "11.1.0.1", "version_compatible": True}),
    ],
)
def test_what_an_engine_was_made_for_is_accepted(monkeypatch, exported, tmp_path, gpu, changes):
    trt = Fake("11.4")
    load_fake(monkeypatch, trt)
    monkeypatch.setattr(cuda, "gpu", lambda index: gpu)
    changes = {"version": trt.__version__} | changes
    TensorRTRuntime(with_engines(exported, tmp_path / "bundle", "tensorrt", **changes))
    allowed = "Runtime.engine_host_code_allowed = True" in trt.done
    assert allowed == ("version_compatible" in changes)


def test_a_bundle_without_engines(exported):
    with pytest.raises(BrokenInput, match="Type first: radapter export --trt"):
        TensorRTRuntime(exported)


def test_engines_of_another_precision(folder):
    with pytest.raises(BrokenInput, match=r"no fp16 engines.*only fp32"):
        TensorRTRuntime(folder, precision="fp16")


def test_a_stale_bundle(folder):
    with pytest.raises(BrokenInput, match="is stale"):
        TensorRTRuntime(folder, weights_hash="0" * 64)


def test_inputs_that_the_engine_does_not_take(folder):
    with pytest.raises(UsageError, match=r"up to \[77\], not \[80\]"):
        TensorRTRuntime(folder).encode_text(torch.zeros(1, 80, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"up to \[3, 32, 32\]"):
        TensorRTRuntime(folder).encode_image(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("deserialize_cuda_engine", BrokenInput),
        ("create_execution_context", GateFailed),
        ("set_input_shape", GateFailed),
        ("set_tensor_address", GateFailed),
        ("execute_async_v3", GateFailed),
    ],
)
def test_what_fails_in_the_library_is_an_error_of_ours(folder, fake, step, error):
    fake.__dict__["failing"] = step
    with pytest.raises(error, match=f"the fake's {step} was told to fail") as raised:
        TensorRTRuntime(folder).encode_image(torch.zeros(1, 3, 32, 32))
    assert raised.value.details["log"]


def test_rtx_is_asked_first_whether_the_engine_is_valid(monkeypatch, exported, tmp_path):
    trt = Fake("rtx-1.7")
    load_fake(monkeypatch, trt)
    trt.__dict__["failing"] = "validity"
    with pytest.raises(BrokenInput, match="invalid on this machine"):
        TensorRTRuntime(with_engines(exported, tmp_path / "bundle", "rtx"))
    assert "new ICudaEngine" not in trt.done


def test_a_torch_without_cuda(folder, fake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependency, match="does not use the NVIDIA Fake 4090"):
        TensorRTRuntime(folder)
    assert not fake.done


@pytest.mark.parametrize("key", ["precision", "profile", "version", "onnx", "flavour", "file"])
def test_a_manifest_with_a_hole(folder, fake, key):
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["engines"]:
        del entry[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BrokenInput, match="is damaged"):
        TensorRTRuntime(folder)


def test_an_engine_that_the_manifest_does_not_hash(folder, fake):
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["engines"]:
        entry["file"] = "../../etc/passwd"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BrokenInput, match="is damaged"):
        TensorRTRuntime(folder)


def test_a_runtime_that_is_a_null_pointer(folder, fake):
    fake.__dict__["failing"] = "Runtime"
    with pytest.raises(MissingDependency, match="cannot start"):
        TensorRTRuntime(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_tensorrt_is_not_even_imported(exported, tmp_path):
    """In a process of its own: a crash would take this one along."""
    folder = with_engines(exported, tmp_path / "bundle", "rtx")
    command = [sys.executable, "-c", WITHOUT_GPU, str(Path(runtime.__file__).parents[2]), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NVIDIA driver" in done.stdout


def test_the_fake_has_no_other_names():
    """What makes it worth testing against."""
    trt = Fake("11.4")
    engine = fake_tensorrt.Object(trt, "ICudaEngine", {})
    for wrong in (
        lambda: trt.Whatever,
        lambda: trt.BuilderFlag.FP16,
        lambda: trt.CudaGraphStrategy,
        lambda: engine.device_memory_size,
    ):
        with pytest.raises(AttributeError):
            wrong()
    config = fake_tensorrt.Object(trt, "IRuntimeConfig", {})
    with pytest.raises(AttributeError):
        config.cuda_graph_strategy = 1
    with pytest.raises(AssertionError, match="really has no"):
        fake_tensorrt.Object(trt, "ICudaEngine", {"get_binding_shape": None})


# ---------------------------------------------------------------- with a GPU, for real


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("flavour", list(flavours.FLAVOURS))
def test_real_engines_agree_with_pytorch(bundle_copy, tiny, flavour):  # pragma: no cover
    from radapter.export.trt import engines

    try:
        chosen = flavours.choose(flavour)
        flavours.load(chosen)
    except MissingDependency as error:
        pytest.skip(str(error))
    gpu = cuda.gpu(0)
    if flavour == "rtx" and gpu.compute_capability == "9.0":
        pytest.skip("TensorRT-RTX has no engines for compute capability 9.0")
    manifest = bundle.verify(bundle_copy)
    sources, _ = engines.sources(bundle_copy, manifest, engines.limits(manifest))
    engines.build_engines(bundle_copy, sources, chosen)
    engine, reference = TensorRTRuntime(bundle_copy, flavour=flavour), PyTorchRuntime(tiny)
    for batch in (1, 2, 2, 2, 7):
        pixels = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        tokens = tiny.tokenizer(["a cat"] * batch)
        for output, expected in (
            (engine.encode_image(pixels), reference.encode_image(pixels)),
            (engine.encode_text(tokens), reference.encode_text(tokens)),
        ):
            torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)
