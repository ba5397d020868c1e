"""Several processes train as one does on the whole batch: 2 and 4 of them, by gloo on the CPU."""

import contextlib
import functools
import json
import os
import shutil
import signal

import pytest
import tiny
import torch
import torch.distributed as dist
from ranks import in_ranks, results
from safetensors.torch import load_file

from radapter import distributed, registry
from radapter import run as runs
from radapter.data.pairs import Pairs, loader
from radapter.errors import BrokenInput, GateFailed
from radapter.registry import METHODS, OPTIMIZERS
from radapter.training import Interrupted, checkpoints, encoding, preparing, resume, starting, train
from radapter.training.gradients import gradients
from radapter.training.step import training_mode

CASES = {
    "one draw an adapter": ["method.drop=0.4"],
    "a draw a sample": ["method.drop=0.4", "method.drop_unit=sample"],
    "a draw a position": ["method.drop=0.4", "method.drop_unit=position", "method.rank=3"],
    "in chunks, computed again": [
        "method.drop=0.4", "optimisation.micro_batch=2", "method.drop_unit=sample",
        "activation_checkpointing=true",
    ],
    "a draw an element": [
        "method={name: multiway, rank: 4, drop: 0.4}", "optimisation.micro_batch=2",
        "activation_checkpointing=true",
    ],
    "a projection for both towers": ["method={name: uniadapter, rank: 4}"],
    "a head with a memory": [
        "method={name: frozen}", "head={name: xmadapter}", "objective=[{name: cross-entropy}]",
        "data.augmentation=null",
    ],
    "full": ["method={name: full, train_temperature: true, average: {momentum: 0.9}}"],
    "lora, retention": [
        "method={name: lora, rank: 2}", f"objective.retain={{captions: {__file__}}}",
    ],
    "pairs alone": ["objective.positives=pair"],
}  # fmt: skip


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def first_steps(recipes):
    """Loss and summed gradients of the first batch of each recipe."""
    found = []
    with distributed.joined():
        for recipe in recipes:
            parts = preparing.prepare(recipe)
            starting.begin(parts)
            with torch.no_grad():  # away from the start, where half the gradients are zero
                for number, parameter in enumerate(parts.trained):
                    wave = torch.sin(torch.arange(parameter.numel()) + number)
                    parameter.add_(0.02 * wave.view_as(parameter))
            training_mode(parts.base.model)
            own = next(
                iter(
                    loader(
                        parts.read,
                        parts.order(),
                        parts.base.tokenizer,
                        0,
                        distributed.rank(),
                        distributed.world_size(),
                    )
                )
            )
            torch.manual_seed(7)
            loss = gradients(
                parts.base.model,
                distributed.exchange(own),
                parts.terms,
                device=parts.device,
                micro_batch=recipe.optimisation.micro_batch,
                teachers={"zero-shot": functools.partial(parts.attached.at, 0.0)},
                pixels=parts.pixels,
            )
            distributed.sum_gradients(parts.trained)
            found.append((loss.item(), [p.grad.numpy().copy() for p in parts.trained]))
    return found


@pytest.mark.parametrize(
    ("case", "count"),
    [*((case, 2) for case in CASES), ("full", 4), ("in chunks, computed again", 4)],
)
def test_gradients_are_those_of_one_process(recipe, case, count):
    # In even parts, in uneven ones, and none for one of four.
    recipes = [recipe(*CASES[case], f"optimisation.batch_size={size}") for size in (8, 7, 3)]
    expected = first_steps(recipes)
    for found in results(in_ranks(count, first_steps, recipes)):
        for (loss, one), (expected_loss, two) in zip(found, expected, strict=True):
            assert loss == pytest.approx(expected_loss, rel=1e-5)
            largest = max(abs(gradient).max() for gradient in two)
            assert largest > 1e-3
            for ours, theirs in zip(one, two, strict=True):
                assert abs(ours - theirs).max() < 1e-5 * max(1.0, largest)


def losses_of(run):
    lines = map(json.loads, run.metrics.read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def equal_end(one, two, rtol=1e-4, atol=1e-5):
    expected, found = load_file(one.adapter), load_file(two.adapter)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol)
    assert losses_of(two) == pytest.approx(losses_of(one), rel=rtol)


def training(recipe, root, **hooks):
    seen = []
    run = train(recipe, root, on_step=lambda m: seen.append(m["step"]), **hooks)
    return run.path, seen


@pytest.mark.parametrize(
    ("case", "count"), [*((case, 2) for case in CASES), ("a draw a sample", 4)]
)
def test_a_run_ends_as_in_one_process(recipe, tmp_path, case, count):
    # A large epsilon: Adam makes steps of full size of gradients that are rounding alone.
    settings = recipe(*CASES[case], "optimisation.eps=1e-3", "optimisation.batch_size=7")
    alone = train(settings, tmp_path / "alone")
    found = results(in_ranks(count, training, settings, tmp_path / "together"))
    (path,) = {path for path, _ in found}  # all of them know the one run
    run = runs.find(root=tmp_path / "together")
    assert run.path == path
    assert sorted(p.name for p in path.iterdir()) == sorted(p.name for p in alone.path.iterdir())
    assert [seen for _, seen in found] == [list(range(1, 10)), *[[]] * (count - 1)]
    equal_end(alone, run)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_ends_as_in_one_process(recipe, tmp_path, name):
    changes = [f"optimisation.name={name}", "optimisation.eps=1e-3", "optimisation.batch_size=7"]
    settings = recipe("method={name: full}", *changes)
    alone = train(settings, tmp_path / "alone")
    results(in_ranks(2, training, settings, tmp_path / "together"))
    # Making momentum orthogonal, in bfloat16, gives directions that are next to rounding full size.
    near = {"rtol": 1e-2, "atol": 1e-2} if name == "muon" else {}
    equal_end(alone, runs.find(root=tmp_path / "together"), **near)


def test_validation_is_shared_and_ends_as_in_one_process(recipe, tmp_path):
    settings = recipe(
        "data.hold_out=0.4", "monitor={every_steps: 1, early_stop: {patience: 2}}",
        "optimisation.eps=1e-3", "optimisation.epochs=9",
    )  # fmt: skip
    alone = train(settings, tmp_path / "alone")
    results(in_ranks(2, training, settings, tmp_path / "together"))
    run = runs.find(root=tmp_path / "together")
    assert sorted(p.name for p in run.path.iterdir()) == sorted(
        p.name for p in alone.path.iterdir()
    )
    one, two = (
        [
            {key: line[key] for key in ("step", "validation", "best_step") if key in line}
            for line in map(json.loads, r.metrics.read_text().splitlines())
        ]
        for r in (alone, run)
    )
    assert two == one
    assert any("validation" in line for line in one)
    for name, value in load_file(alone.best).items():
        torch.testing.assert_close(load_file(run.best)[name], value, rtol=1e-4, atol=1e-5)


def watched(recipe, root):
    """Training of which every rank notes the pictures that its workers read."""
    real = Pairs.__getitem__

    def noted(pairs, place):
        item = real(pairs, place)
        if "image" in item:
            with open(root / f"read-{os.environ['RANK']}", "a") as file:
                file.write(f"{place[0]} {place[1]}\n")
        return item

    Pairs.__getitem__ = noted
    return training(recipe, root / "runs")


def test_workers_read_each_picture_once_an_epoch(recipe, tmp_path):
    """By the ranks together, whatever the share of each; the rest of the order is dropped."""
    settings = recipe("workers=2", "optimisation.batch_size=6", "optimisation.epochs=2")
    results(in_ranks(4, watched, settings, tmp_path))
    read = [(tmp_path / f"read-{rank}").read_text().splitlines() for rank in range(4)]
    assert [len(lines) for lines in read] == [8, 16, 8, 16]  # of 6: 1, 2, 1, 2
    everything = [line for lines in read for line in lines]
    assert sorted(everything) == sorted(f"{e} {i}" for e in range(2) for i in range(24))


@pytest.fixture
def damaged(shapes, tmp_path):
    """Shapes of which most of one class, and one of another, cannot be read."""
    root = shutil.copytree(shapes, tmp_path / "damaged")
    for number in range(7):
        (root / "blue_circle" / f"0{number}.png").write_bytes(b"no picture")
    (root / "red_square" / "05.png").write_bytes(b"no picture")
    return root


def noted(recipe, root, file):
    with open(file, "a") as said, contextlib.redirect_stderr(said):
        return training(recipe, root)


@pytest.mark.parametrize("count", [2, 3])
def test_broken_pictures_are_left_out_as_in_one_process(tiny_folder, damaged, tmp_path, count):
    settings = tiny.recipe(
        tiny_folder, damaged, "data.broken_images=8", "optimisation.batch_size=4",
        "optimisation.eps=1e-3", "method.drop_unit=sample", "method.drop=0.4",
    )  # fmt: skip
    alone = train(settings, tmp_path / "alone")
    results(in_ranks(count, noted, settings, tmp_path / "together", tmp_path / "said"))
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if "skipped" in line]
    assert len(lines) == 8
    equal_end(alone, runs.find(root=tmp_path / "together"))


def test_batches_of_broken_pictures_alone_are_no_steps(tiny_folder, shapes, tmp_path):
    root = shutil.copytree(shapes, tmp_path / "all")
    for path in root.rglob("*.png"):
        if path.stem != "00":
            path.write_bytes(b"")
    settings = tiny.recipe(
        tiny_folder, root, "data.broken_images=100", "optimisation.batch_size=2",
        "optimisation.epochs=1", "optimisation.eps=1e-3",
    )  # fmt: skip
    alone = train(settings, tmp_path / "alone")
    results(in_ranks(2, training, settings, tmp_path / "together"))
    equal_end(alone, runs.find(root=tmp_path / "together"))


def test_broken_pictures_are_counted_over_all_ranks(tiny_folder, damaged, tmp_path):
    settings = tiny.recipe(tiny_folder, damaged, "data.broken_images=7")
    for error in in_ranks(2, training, settings, tmp_path):
        assert error.kind is BrokenInput
        assert "8 broken, and data.broken_images allows 7" in error.message


def spoiled(recipe, root):
    """Training of which one rank's features are no numbers in the third step."""
    real, calls = encoding.encode_pictures, []

    def encode(model, pictures, precision):
        calls.append(1)
        features = real(model, pictures, precision)
        return features * float("nan") if len(calls) == 3 and distributed.rank() else features

    encoding.encode_pictures = encode  # in a forked process: nobody else sees it
    return training(recipe, root)


def test_no_number_in_one_rank_stops_all_at_the_same_step(recipe, tmp_path):
    for error in in_ranks(2, spoiled, recipe(), tmp_path):
        assert error.kind is GateFailed
        assert "became nan" in error.message
    assert len(losses_of(runs.find(root=tmp_path))) == 2


def stopped(recipe, root):
    """Training that the last rank alone is asked to stop, after four steps."""
    asked = iter([False] * 3 + [True] * 99)
    last = distributed.world_size  # known once joined
    return training(
        recipe, root, should_stop=lambda: next(asked) and distributed.rank() == last() - 1
    )


def resumed(path):
    return resume(runs.Run(path)).path


@pytest.mark.parametrize("then", [1, 2, 3])
def test_all_stop_at_the_step_that_one_is_stopped_at(recipe, tmp_path, then):
    """And go on, with as many ranks or another number of them, to the same end."""
    settings = recipe("optimisation.eps=1e-3")
    alone = train(settings, tmp_path / "alone")
    for error in in_ranks(2, stopped, settings, tmp_path / "together"):
        assert error.kind is Interrupted
        assert error.step == 4
        assert error.message.endswith("--devices 2")
    run = runs.find(root=tmp_path / "together")
    assert [p.name for p in run.checkpoints.glob("step-*")] == ["step-00000004"]
    results(in_ranks(then, resumed, run.path))
    equal_end(alone, run)


def test_resuming_with_as_many_ranks_is_exact(recipe, tmp_path):
    settings = recipe("method.drop=0.4")
    results(in_ranks(2, training, settings, tmp_path / "whole"))
    in_ranks(2, stopped, settings, tmp_path / "stopped")
    run = runs.find(root=tmp_path / "stopped")
    results(in_ranks(2, resumed, run.path))
    whole = runs.find(root=tmp_path / "whole")
    assert run.adapter.read_bytes() == whole.adapter.read_bytes()


def dying(recipe, root):
    def die():
        if distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    return training(recipe, root, should_stop=die)


def test_the_others_of_a_rank_that_dies_do_not_wait_for_it(recipe, tmp_path):
    lost, died = in_ranks(2, dying, recipe(), tmp_path)
    assert lost.kind is distributed.RankLost
    assert died is None


def test_a_run_that_another_process_writes_is_refused(recipe, tmp_path):
    in_ranks(2, stopped, recipe(), tmp_path)
    run = runs.find(root=tmp_path)
    with run.lock():
        first, second = in_ranks(2, resumed, run.path)
    assert "being written by another process" in first.message
    assert second.kind is distributed.RankLost


def astray(path):
    """Resuming, of which one rank sees no checkpoint."""
    real = checkpoints.load
    checkpoints.load = lambda folder: None if distributed.rank() else real(folder)
    return resumed(path)


def test_ranks_that_start_from_different_things_are_told(recipe, tmp_path):
    in_ranks(2, stopped, recipe(), tmp_path)
    for error in in_ranks(2, astray, runs.find(root=tmp_path).path):
        assert error.kind is BrokenInput
        assert "do not start from the same checkpoint" in error.message


def unlike(recipe, root):
    """Training of which one rank's adapters were drawn on another kind of device, so to say."""
    real = registry.load(METHODS, "lora").attach

    def attach(model, **settings):
        attached = real(model, **settings)
        if distributed.rank():
            with torch.no_grad():
                next(attached.parameters()).view(-1)[0] += 1e-6
        return attached

    registry.load(METHODS, "lora").attach = attach  # in a process of its own
    return training(recipe, root)


def test_ranks_that_drew_other_adapters_are_told(recipe, tmp_path):
    for error in in_ranks(2, unlike, recipe("method={name: lora, rank: 2}"), tmp_path):
        assert error.kind is BrokenInput
        assert "do not start from the same trained weights" in error.message


CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


def told_by_itself(recipe, root, backend):
    """Training in a group of one that tells itself everything."""
    device = {"device_id": torch.device("cuda", 0)} if "nccl" in backend else {}
    dist.init_process_group(backend, **device)
    calls, real = [], dist.all_reduce

    def counted(tensor, **settings):
        calls.append(tensor.device.type)
        return real(tensor, **settings)

    dist.all_reduce, distributed.alone = counted, lambda: False  # in a process of its own
    path, seen = training(recipe, root)
    dist.destroy_process_group()
    return path, len(seen), set(calls)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_group_of_one_changes_nothing(recipe, tmp_path, device):
    """Every collective is called: what one GPU can show of NCCL."""
    settings = recipe(f"device={device}", "method.drop=0.4", "optimisation.batch_size=7")
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    arguments = settings, tmp_path / "group", backend
    ((path, steps, devices),) = results(in_ranks(1, told_by_itself, *arguments))
    assert steps == 9
    assert devices == {"cpu", device}
    alone = train(settings, tmp_path / "alone")
    if device == "cpu":
        assert runs.Run(path).adapter.read_bytes() == alone.adapter.read_bytes()
    else:
        equal_end(alone, runs.Run(path))


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_nccl_knows_whose_gpu_is_which_before_it_talks(monkeypatch, device):
    said = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: said.append(str(device)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: said.append("left"))
    monkeypatch.setattr(
        dist, "init_process_group",
        lambda backend, timeout, device_id=None: said.append((backend, str(device_id))),
    )  # fmt: skip
    with distributed.joined(torch.device(device)):
        pass
    expected = {
        "cpu": [("gloo", "None"), "left"],
        "cuda:1": ["cuda:1", ("cpu:gloo,cuda:nccl", "cuda:1"), "left"],
    }
    assert said == expected[device]


@pytest.mark.parametrize(("device", "expected"), [("cpu", ["left"]), ("cuda:1", [])])
def test_an_error_does_not_wait_for_nccl(monkeypatch, device, expected):
    said = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: said.append("left"))
    with pytest.raises(BrokenInput), distributed.joined(torch.device(device)):
        raise BrokenInput("no such file")
    assert said == expected


@pytest.mark.parametrize(("local_rank", "expected"), [("1", "cuda:1"), (None, "cuda:2")])
def test_a_process_among_several_has_a_gpu_by_number(recipe, monkeypatch, local_rank, expected):
    """NCCL takes no device without one; srun and mpirun do not set LOCAL_RANK."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    for name, value in {"is_available": True, "device_count": 3, "current_device": 2}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert str(preparing.device_of(recipe("device=cuda"))) == expected


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
        (RuntimeError("Connection closed by peer"), distributed.RankLost),
    ],
)
def test_memory_that_runs_out_here_is_no_rank_that_is_lost(monkeypatch, problem, expected):
    def fail(tensor):
        raise problem

    monkeypatch.setattr(distributed, "alone", lambda: False)
    monkeypatch.setattr(dist, "all_reduce", fail)
    with pytest.raises(expected):
        distributed.add_up(torch.ones(1))


def talk():
    with distributed.joined():
        rank, count = distributed.rank(), distributed.world_size()
        rows = torch.arange(5 * 2.0).view(5, 2)
        own = distributed.share(5)
        parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
        parameters[0].grad = torch.full((2,), rank + 1.0)
        if rank == 1:
            parameters[1].grad = torch.ones(2)
        distributed.sum_gradients(parameters)
        return {
            "shares": distributed.all_gather_object([own.start, own.stop]),
            "said": distributed.all_gather_object("é" * rank),
            "gathered": distributed.gather(rows[own], own.start, 5).tolist() == rows.tolist(),
            "one says so": distributed.anyone(rank == count - 1),
            "nobody": distributed.anyone(False),
            "gradients": [p.grad if p.grad is None else p.grad.tolist() for p in parameters],
        }


@pytest.mark.parametrize("count", [2, 4, 6])
def test_what_ranks_tell_each_other(count):
    for found in results(in_ranks(count, talk)):
        shares = found["shares"]
        assert [i for a, b in shares for i in range(a, b)] == list(range(5))
        assert max(b - a for a, b in shares) - min(b - a for a, b in shares) <= 1
        assert found["said"] == ["é" * rank for rank in range(count)]
        assert found["gathered"]
        assert found["one says so"]
        assert not found["nobody"]
        total = count * (count + 1) / 2
        assert found["gradients"] == [[total, total], [1.0, 1.0], None]


def test_one_process_says_what_it_is_told():
    tensor = torch.ones(2, 3)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main_process()) == (
        0,
        1,
        True,
    )
    assert distributed.gather(tensor, 0, 2) is tensor
    assert distributed.all_gather_object({"a": 1}) == [{"a": 1}]
    assert distributed.share(7) == slice(0, 7)
    batch = {"groups": tensor}
    assert distributed.exchange(batch) is batch
