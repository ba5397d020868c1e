"""PyTorch as a runtime: its precision, its device, and what it says where memory runs out."""

import dataclasses

import pytest
import torch
from tiny_bundle import make
from torch import nn

from radapter.errors import UsageError, ran_out_of_memory
from radapter.runtimes.pytorch import PyTorchRuntime, evaluation_mode, moved


def test_cudnn_stays_on_while_features_are_computed(monkeypatch):
    seen = []
    loaded = make()
    loaded.model.visual.conv1.register_forward_hook(
        lambda *_: seen.append(
            (torch.backends.cudnn.enabled, torch.backends.cudnn.conv.fp32_precision)
        )
    )
    PyTorchRuntime(loaded).encode_image(torch.zeros(1, 3, 32, 32))
    assert seen == [(True, "ieee")]


def test_a_process_that_allowed_tf32_in_the_newer_way(tiny):
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        runtime = PyTorchRuntime(tiny)
        with evaluation_mode(tiny.model):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert runtime.identity == PyTorchRuntime(tiny).identity


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions(tiny, precision):
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = tiny.tokenizer(["a cat", "two dogs"])
    half, full = PyTorchRuntime(tiny, precision=precision), PyTorchRuntime(tiny)
    for ours, theirs in (
        (half.encode_image(pixels), full.encode_image(pixels)),
        (half.encode_text(tokens), full.encode_text(tokens)),
    ):
        assert ours.dtype == torch.float32
        cosines = torch.cosine_similarity(ours, theirs)
        assert cosines.min() > 0.999
        assert not torch.equal(ours, theirs)
    assert half.precision == half.identity["precision"] == precision
    assert next(tiny.model.parameters()).dtype == torch.float32


def test_an_unknown_precision(tiny):
    with pytest.raises(UsageError, match="Did you mean 'fp16'"):
        PyTorchRuntime(tiny, precision="fp61")


class Placed(nn.Module):
    """A FAKE model that says where it is, and is moved in name only."""

    def __init__(self, device):
        super().__init__()
        self.device, self.logit_scale = torch.device(device), torch.zeros(())

    def parameters(self):
        class Parameter:
            device = self.device

        yield Parameter()

    def __deepcopy__(self, memo):
        return Placed(self.device)

    def to(self, device):
        self.device = torch.device(device)
        return self


@pytest.mark.parametrize(
    ("present", "asked", "place"),
    [
        ("cuda:0", "cuda:1", "cuda:1"),
        ("cuda:1", "cuda:1", "cuda:1"),
        ("cuda:1", "cuda", "cuda:1"),
        ("cpu", "cuda:1", "cuda:1"),
        ("cuda:0", "cpu", "cpu"),
    ],
)
def test_a_model_is_moved_to_the_device_asked_for(tiny, monkeypatch, present, asked, place):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"FAKE {device}")
    loaded = dataclasses.replace(tiny, model=Placed(present))
    loaded.__dict__["weights_hash"] = "0" * 64
    runtime = PyTorchRuntime(loaded, asked)
    assert runtime.place == torch.device(place)
    assert loaded.model.device == torch.device(present)
    if place != "cpu":
        assert runtime.provenance["device_name"] == f"FAKE {place}"


def test_no_room_for_the_model_is_no_missing_device(tiny, monkeypatch):
    def full(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(torch.OutOfMemoryError) as error:
        PyTorchRuntime(tiny, "cuda")
    assert ran_out_of_memory(error.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="cuda cannot be used, so the CPU is: CUDA out of memory"):
        runtime = PyTorchRuntime(tiny, "auto")
    assert runtime.device == "cpu"
    assert len(runtime.encode_text(tiny.tokenizer(["a cat"]))) == 1


def test_what_counts_as_running_out_of_memory():
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

    for error in (
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeException("Failed to allocate memory for requested buffer of size 8"),
    ):
        assert ran_out_of_memory(error)
    for error in (ValueError("out of memory"), OSError(28, "No space left"), Fail("bad node")):
        assert not ran_out_of_memory(error)


class Copied:
    """A FAKE tensor that says how it goes to a device."""

    is_cuda = False

    def __init__(self):
        self.calls = []

    def pin_memory(self):
        self.calls.append("pin")
        return self

    def to(self, device, non_blocking=False):
        self.calls.append((str(device), non_blocking))
        return self


def test_what_goes_to_a_gpu_goes_from_pinned_memory():
    assert moved(Copied(), torch.device("cuda:0")).calls == ["pin", ("cuda:0", True)]
    assert moved(Copied(), torch.device("cpu")).calls == [("cpu", False)]
