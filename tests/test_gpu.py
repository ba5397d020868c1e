"""On a GPU as on a CPU: training in every precision and form, evaluation, and what is waited for.

Tiny models, a few seconds each; benchmarks/gpu.py has the same at full size.
"""

import warnings

import pytest
import tiny
import torch
from safetensors.torch import load_file

from radapter import models
from radapter.registry import OPTIMIZERS
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.training import Interrupted, resume, train

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NO_DROP = "method.drop=0"  # the devices draw differently


def trained(folder, shapes, path, *changes, device=DEVICE, **hooks):
    return train(tiny.recipe(folder, shapes, f"device={device}", *changes), path, **hooks)


def losses(run):
    return [line["loss"] for line in run.logged("loss")]


def adapter(run):
    tensors = load_file(run.path / "adapter.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.fixture(scope="module")
def on_the_cpu(tiny_folder, shapes, tmp_path_factory):
    return trained(tiny_folder, shapes, tmp_path_factory.mktemp("cpu"), NO_DROP, device="cpu")


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ([], 1e-3),
        (["precision=bf16"], 3e-2),
        (["optimisation.micro_batch=3"], 1e-3),
        (["activation_checkpointing=true"], 1e-3),
        (["workers=2"], 1e-3),
    ],
)
def test_losses_are_those_of_the_cpu(tiny_folder, shapes, tmp_path, on_the_cpu, changes, allowed):
    run = trained(tiny_folder, shapes, tmp_path, NO_DROP, *changes)
    assert losses(run) == pytest.approx(losses(on_the_cpu), rel=allowed)
    cosine = torch.cosine_similarity(adapter(run), adapter(on_the_cpu), dim=0)
    assert cosine > (0.999 if allowed < 1e-2 else 0.9)


def test_fp16_starts_alike_and_learns(tiny_folder, shapes, tmp_path, on_the_cpu):
    """Its first steps may be left out, while the gradients' scale is found."""
    found = losses(trained(tiny_folder, shapes, tmp_path, NO_DROP, "precision=fp16"))
    assert found[0] == pytest.approx(losses(on_the_cpu)[0], rel=1e-2)
    assert found[-1] < found[0]


def test_compiled_is_the_same(tiny_folder, shapes, tmp_path, on_the_cpu):
    run = trained(tiny_folder, shapes, tmp_path, NO_DROP, "compile=true")
    assert losses(run) == pytest.approx(losses(on_the_cpu), rel=2e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_as_on_the_cpu(tiny_folder, shapes, tmp_path, name):
    changes = [NO_DROP, f"optimisation.name={name}", "optimisation.eps=1e-3"]
    ours = trained(tiny_folder, shapes, tmp_path / "gpu", *changes)
    theirs = trained(tiny_folder, shapes, tmp_path / "cpu", *changes, device="cpu")
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["precision=fp16"],
        ["optimisation.name=spd", "precision=fp16"],
        ["optimisation.name=ftp", "precision=fp16"],
    ],
)
def test_a_resumed_run_ends_where_an_unbroken_one_does(tiny_folder, shapes, tmp_path, changes):
    whole = trained(tiny_folder, shapes, tmp_path / "whole", *changes)
    stop = iter([False] * 3 + [True] * 100)
    with pytest.raises(Interrupted) as stopped:
        trained(tiny_folder, shapes, tmp_path / "part", *changes, should_stop=lambda: next(stop))
    again = resume(stopped.value.run)
    assert losses(again) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-6), ("fp16", 1e-4), ("bf16", 1e-2)])
def test_features_are_those_of_the_cpu_and_the_same_twice(tiny_folder, precision, allowed):
    loaded = models.load(tiny_folder)
    pixels, tokens = tiny.batch(loaded, 5)
    runtime, reference = PyTorchRuntime(loaded, DEVICE, precision), PyTorchRuntime(loaded)
    for ours, again, theirs in (
        (
            runtime.encode_image(pixels),
            runtime.encode_image(pixels),
            reference.encode_image(pixels),
        ),
        (runtime.encode_text(tokens), runtime.encode_text(tokens), reference.encode_text(tokens)),
    ):
        assert ours.device.type == "cpu"
        assert torch.equal(ours, again)
        assert 1 - torch.cosine_similarity(ours.double(), theirs.double()).min() <= allowed


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_waits_for_the_device_once_or_twice(
    tiny_folder, shapes, tmp_path, monkeypatch, name
):
    from radapter.training import loop

    counted, step = [], loop.optimizer_step

    def watched(parts, batch):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return step(parts, batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits = [w for w in caught if "called a synchronizing" in str(w.message)]
                counted.append([f"{w.filename}:{w.lineno}" for w in waits])

    monkeypatch.setattr(loop, "optimizer_step", watched)
    trained(tiny_folder, shapes, tmp_path, f"optimisation.name={name}")
    assert len(counted[-1]) <= 2, counted[-1]


def test_memory_that_runs_out_names_what_to_try(tiny_folder, shapes, tmp_path, monkeypatch):
    from radapter.errors import MissingDependency
    from radapter.training import loop

    def too_much(parts, batch):
        return torch.empty(2**44, dtype=torch.uint8, device=DEVICE)

    monkeypatch.setattr(loop, "optimizer_step", too_much)
    with pytest.raises(MissingDependency, match=r"Out of memory on cuda.*micro_batch=4"):
        trained(tiny_folder, shapes, tmp_path)


def test_nccl_in_a_group_of_one(monkeypatch):
    import torch.distributed as dist

    from radapter import distributed

    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    try:
        x = torch.randn(7, 5, device=DEVICE)
        assert torch.equal(distributed.add_up(x.clone()), x)
        assert torch.equal(distributed.gather(x, 0, 7), x)
        parameter, without = (torch.nn.Parameter(x.clone()) for _ in range(2))
        parameter.grad = x.clone()
        distributed.sum_gradients([parameter, without])
        assert torch.equal(parameter.grad, x)
        assert without.grad is None
        assert distributed.anyone(True)
        assert not distributed.anyone(False)
    finally:
        dist.destroy_process_group()
