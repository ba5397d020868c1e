"""What goes wrong while training is caused here, and what is left is looked at."""

import errno
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import SafetensorError

from radapter import recipe as recipes
from radapter import run as runs
from radapter.errors import BrokenInput, GateFailed, MissingDependency
from radapter.objectives import contrastive
from radapter.training import (
    Interrupted,
    checkpoints,
    failures,
    loop,
    resume,
    session,
    train,
)  # fmt: skip

OFTEN = "checkpoints.every_seconds=1e-9"
TIMES = ("seconds", "pairs_per_second", "data_wait_share", "peak_memory_bytes")


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def lines(run):
    """metrics.jsonl without what no two runs share."""
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found]


def steps_of(run):
    return [line["step"] for line in lines(run)]


def the_run(root):
    return runs.find(root=root)


def whole_state(run):
    """Of a run that has stopped."""
    found = checkpoints.load(run.checkpoints)
    return {"step": found.step, "session": found.session}, found.method | found.optimizer


def same_tensors(one, two):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


# ------------------------------------------------------------------ going on exactly

VARIANTS = {"workers": ["workers=2"]} | {
    case.id: [f"method={tiny.method(*case.values)}"]
    for case in tiny.methods(first=True, alone=True)
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("k", [4, 5])
def test_2k_steps_are_k_and_k_more(recipe, tmp_path, monkeypatch, change, k):
    """Adapter, average, optimizer and metrics; a line of metrics is of three steps, and both k lie
    between two lines."""
    steps = 2 * k
    settings = recipe(*change, "optimisation.epochs=4")  # 12 steps
    monkeypatch.setattr(session, "LOG_LINES", 4)

    seen, stopped = [], {}

    def stop_after(number):
        return lambda: len(seen) >= number

    def on_step(m):
        seen.append(m["step"])

    for name, stops in (("straight", [steps]), ("in two", [k, steps])):
        seen.clear()
        for number, stop in enumerate(stops):
            start = (
                functools.partial(train, settings, tmp_path / name)
                if number == 0
                else functools.partial(resume, the_run(tmp_path / name))
            )
            with pytest.raises(Interrupted):
                start(should_stop=stop_after(stop), on_step=on_step)
        assert seen == list(range(1, steps + 1))
        stopped[name] = the_run(tmp_path / name)
    (facts, one), (others, two) = (whole_state(run) for run in stopped.values())
    assert facts == others
    assert facts["step"] == steps
    assert len(facts["session"]["recent_losses"]) == steps % 3
    same_tensors(one, two)
    ended = [resume(run) for run in stopped.values()]
    assert lines(ended[0]) == lines(ended[1])
    assert steps_of(ended[0]) == [3, 6, 9, 12]
    assert ended[0].adapter.read_bytes() == ended[1].adapter.read_bytes()


def test_what_the_fallback_left_behind_is_not_kept_instead_of_what_is_whole(tmp_path):
    """Steps 5 and 10, 10 is damaged: a run that goes on from 5 must not lose it to 10."""

    def save(step, keep=2):
        checkpoints.save(
            tmp_path, checkpoints.Checkpoint(step, 0.0, {"a": torch.ones(1)}, {}), keep
        )

    save(5)
    save(10)
    (tmp_path / "step-00000010" / "state.json").write_text("{}")
    save(7)
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == [
        "step-00000005", "step-00000007",
    ]  # fmt: skip
    assert checkpoints.newest(tmp_path) == 7


# ------------------------------------------------------------------ a full disk


def failing(function, calls):
    """`function`, which finds the disk full on these calls, counted from 1."""
    made = []

    @functools.wraps(function)
    def call(*args, **kwargs):
        made.append(args)
        if len(made) in calls:
            full()
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("how", ["fsync", "safetensors"])
def test_a_checkpoint_that_is_not_written_is_a_warning(recipe, tmp_path, monkeypatch, how):
    whole = train(recipe(), tmp_path / "whole")
    run, found = {}, []

    def on_step(m):
        """What lies there after the save of the step before."""
        found.append(checkpoints.newest(run["is"].checkpoints))

    def refuse(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    real = checkpoints.save_file
    if how == "fsync":
        monkeypatch.setattr(checkpoints, "save", failing(checkpoints.save, {3, 4, 8}))
    else:
        made = []

        def save_file(*args):
            made.append(args)
            (refuse if len(made) in (3, 4, 8) else real)(*args)

        monkeypatch.setattr(checkpoints, "save_file", save_file)
    with pytest.warns(UserWarning, match="No space left on device.*Training goes on") as caught:
        train(
            recipe(OFTEN),
            tmp_path / "full",
            on_start=lambda started, plan: run.update({"is": started}),
            on_step=on_step,
        )
    told = [str(w.message) for w in caught if "Training goes on" in str(w.message)]
    assert [int(re.search(r"after step (\d+)", text)[1]) for text in told] == [3, 4, 8]
    assert found == [0, 1, 2, 2, 2, 5, 6, 7, 7]
    assert run["is"].adapter.read_bytes() == whole.adapter.read_bytes()
    assert not list(run["is"].path.rglob(".*.tmp"))


def test_metrics_that_are_not_written_are_written_later(recipe, tmp_path):
    """The real thing where a file may be limited: what is not flushed stays in memory."""
    whole = train(recipe(), tmp_path / "whole")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def on_step(m):
        if m["step"] == 3:
            size = the_run(tmp_path / "full").metrics.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, limit[1]))
        if m["step"] == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    try:
        with pytest.warns(UserWarning, match=r"metrics\.jsonl were not written: File too large"):
            run = train(recipe(), tmp_path / "full", on_step=on_step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert lines(run) == lines(whole)
    assert run.adapter.read_bytes() == whole.adapter.read_bytes()


def test_an_interruption_with_a_full_disk_says_where_a_resumed_run_starts(
    recipe, tmp_path, monkeypatch
):
    stop = []

    def on_step(m):
        if m["step"] == 5:
            monkeypatch.setattr(checkpoints, "save", full)
            stop.append(1)

    with (
        pytest.warns(UserWarning, match="after step 5 was not written"),
        pytest.raises(BrokenInput, match=r"No space left.*\nTo go on from step 4, type: "),
    ):
        train(recipe(OFTEN), tmp_path, on_step=on_step, should_stop=lambda: bool(stop))
    run = the_run(tmp_path)
    assert checkpoints.load(run.checkpoints).step == 4
    assert not run.adapter.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a given size."""
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("only root mounts a file system")
    place, made = tmp_path / "disk", []

    def mount(kilobytes):
        place.mkdir()
        options = f"size={kilobytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no file system is mounted here: {done.stderr.strip()}")
        made.append(place)
        return place

    yield mount
    for path in made:
        subprocess.run(["umount", str(path)], check=False)


@pytest.mark.filterwarnings("ignore:The state after step")
def test_a_small_disk(recipe, tmp_path, small_disk):
    """No room for a checkpoint, then none for the adapter; once there is room it goes on."""
    whole = train(recipe(), tmp_path / "whole")
    size = whole.adapter.stat().st_size // 1024
    root = small_disk(14 * size + 64)  # three checkpoints are 12 times the adapter

    def on_step(m):
        if m["step"] == 6:
            free = shutil.disk_usage(root).free
            (root / "ballast").write_bytes(bytes(free - 8192))

    with pytest.raises(BrokenInput, match=r"No space left.*adapter.*after step 9 of 9\.") as caught:
        train(recipe(OFTEN), root, on_step=on_step)
    assert caught.value.exit_code == 4
    run = the_run(root)
    assert not run.adapter.exists()
    assert not list(run.path.rglob(".*.tmp"))
    last = checkpoints.newest(run.checkpoints)
    assert f"To go on from step {last}, type: radapter train" in str(caught.value)
    assert last >= 4
    (root / "ballast").unlink()
    assert resume(run).adapter.read_bytes() == whole.adapter.read_bytes()
    assert lines(run) == lines(whole)


# ------------------------------------------------------------------ reading pictures


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_stops_with_its_name_and_the_state(
    tiny_folder, shapes, tmp_path, workers
):
    root = shutil.copytree(shapes, tmp_path / "damaged")
    settings = tiny.recipe(tiny_folder, root, f"workers={workers}")
    whole = train(settings, tmp_path / "whole")
    good = (root / "blue_circle" / "03.png").read_bytes()

    def on_step(m):
        if m["step"] == 2:  # of three an epoch
            (root / "blue_circle" / "03.png").write_bytes(good[: len(good) // 2])

    with pytest.raises(BrokenInput) as caught:
        train(settings, tmp_path / "stopped", on_step=on_step)
    run = the_run(tmp_path / "stopped")
    last = checkpoints.load(run.checkpoints).step
    assert 2 <= last <= 8  # the workers read ahead
    assert "Picture cannot be read" in str(caught.value)
    assert "blue_circle/03.png" in str(caught.value)
    assert str(caught.value).endswith(
        f"To go on from step {last}, type: radapter train --resume {run.path}"
    )
    (root / "blue_circle" / "03.png").write_bytes(good)
    assert resume(run).adapter.read_bytes() == whole.adapter.read_bytes()
    assert lines(run) == lines(whole)


def workers_of(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.parametrize("moment", ["between steps", "within a step"])
def test_a_worker_that_is_killed_costs_nothing(recipe, tmp_path, monkeypatch, moment):
    settings = recipe("workers=2", "optimisation.epochs=8")  # more than the workers read ahead
    whole = train(settings, tmp_path / "whole")
    before = set(workers_of(os.getpid()))
    killed = []

    def kill():
        if not killed:
            killed.extend(set(workers_of(os.getpid())) - before)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)  # let the signal come

    if moment == "within a step":
        real = contrastive.multi_positive
        monkeypatch.setattr(
            contrastive, "multi_positive", lambda *a, **k: (kill(), real(*a, **k))[1]
        )
    with pytest.raises(MissingDependency) as caught:
        train(settings, tmp_path / "stopped", on_step=lambda m: kill())
    run = the_run(tmp_path / "stopped")
    monkeypatch.undo()
    assert len(killed) == 2
    text = str(caught.value)
    assert any(f"pid {pid}" in text or f"{pid}," in text for pid in killed), text
    for part in ("/dev/shm", "memory ran out", "workers=1", f"train --resume {run.path}"):
        assert part in text
    last = checkpoints.load(run.checkpoints).step
    assert last >= 1
    assert f"To go on from step {last}, type: radapter train" in text
    assert last == len(lines(run))  # the last whole step, not that of the last interval
    # As the message says: fewer workers, in the run's own recipe.
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text().replace("workers: 2", "workers: 1"))
    assert run.recipe().workers == 1
    assert resume(run).adapter.read_bytes() == whole.adapter.read_bytes()
    assert lines(run) == lines(whole)


# ------------------------------------------------------------------ not finite


def broken_steps(monkeypatch, numbers, what):
    """Let the loss, or only the gradients, of these steps (from 1) not be finite."""
    real, calls = contrastive.multi_positive, []

    def breaking(*args, **settings):
        calls.append(1)
        loss = real(*args, **settings)
        if len(calls) not in numbers:
            return loss
        if what == "gradients":
            loss.register_hook(lambda gradient: gradient * float("inf"))
            return loss
        return loss * float(what)

    monkeypatch.setattr(contrastive, "multi_positive", breaking)
    return calls


@pytest.mark.parametrize("clip", ["1.0", "null"])
@pytest.mark.parametrize("what", ["nan", "inf", "gradients"])
def test_a_step_that_is_not_finite_stops_and_names_its_batch(
    recipe, tmp_path, monkeypatch, shapes, what, clip
):
    settings = recipe(f"optimisation.clip_norm={clip}")
    broken_steps(monkeypatch, {5}, what)
    with pytest.raises(GateFailed) as caught:
        train(settings, tmp_path)
    run = the_run(tmp_path)
    assert caught.value.exit_code == 3
    name = "norm of the gradients became" if what == "gradients" else f"loss became {what}"
    for part in (name, "in step 5.", str(run.path / "bad_batch.json"), "smaller optimisation.lr"):
        assert part in str(caught.value)
    content = json.loads((run.path / "bad_batch.json").read_text())
    ((step),) = content["steps"]
    assert step["step"] == 5
    assert len(step["pairs"]) == 8
    # The second batch of the second epoch: what the first and third leave over.
    parts = loop.prepare(settings)
    expected = [parts.pairs.dataset.keys[i] for _, i in list(parts.order())[4]]
    assert [pair["picture"] for pair in step["pairs"]] == expected
    for pair in step["pairs"]:
        assert (shapes / pair["picture"]).is_file()
        assert pair["class"].replace(" ", "_") == Path(pair["picture"]).parts[0]
    assert steps_of(run) == [1, 2, 3, 4]
    assert not run.adapter.exists()


def test_captions_are_named_too(tiny_folder, tmp_path, monkeypatch):
    root = tiny.draw_shapes(tmp_path / "shapes", each=2)
    pictures = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    rows = [f"{p},{i} {p[:3]}" for i, p in enumerate(pictures)]
    (root / "table.csv").write_text("\n".join(["filepath,title", *rows]) + "\n")
    text = tiny.text(tiny_folder, root)
    start, end = text.index("data:"), text.index("objective:")
    text = (
        text[:start]
        + f"data: {{source: table, path: {root}/table.csv, task: captions}}\n"
        + (text[end:])
    )
    broken_steps(monkeypatch, {1}, "nan")
    with pytest.raises(GateFailed):
        train(recipes.parse(text, "t", ["optimisation.batch_size=4"]), tmp_path / "runs")
    content = json.loads((the_run(tmp_path / "runs").path / "bad_batch.json").read_text())
    captions = dict(row.split(",") for row in rows)
    for pair in content["steps"][0]["pairs"]:
        assert captions[pair["picture"]] == pair["text"]


@pytest.mark.parametrize("what", ["nan", "gradients"])
def test_bad_steps_up_to_a_number_in_a_row_are_left_out(recipe, tmp_path, monkeypatch, what):
    """Of weights, optimizer and average: all stay as the step before left them."""
    settings = recipe("optimisation.stop_after_bad_steps=3")
    states = []

    def on_step(m):
        found = {name: value.clone() for name, value in parts[0].attached.state().items()}
        optimizer = checkpoints.optimizer_tensors(parts[0].optimizer)
        states.append(found | {name: value.clone() for name, value in optimizer.items()})

    parts, real = [], loop.prepare
    monkeypatch.setattr(loop, "prepare", lambda recipe: (parts.append(real(recipe)), parts[-1])[1])
    broken_steps(monkeypatch, {4, 5, 7, 8}, what)
    with pytest.warns(UserWarning, match="Training goes on; 3 in a row stop") as caught:
        run = train(settings, tmp_path, on_step=on_step)
    told = [str(w.message) for w in caught if "bad_batch.json" in str(w.message)]
    assert [int(re.search(r"in step (\d+)", text)[1]) for text in told] == [4, 5, 7, 8]
    for left_out in (4, 5, 7, 8):
        same_tensors(states[left_out - 1], states[left_out - 2])
    for done in (2, 3, 6, 9):
        assert any(
            not torch.equal(states[done - 1][name], states[done - 2][name]) for name in states[0]
        )
    with_facts = parts[0].attached
    assert with_facts.start_share == pytest.approx(0.9**5)
    assert steps_of(run) == list(range(1, 10))
    assert all(torch.isfinite(v).all() for v in states[-1].values())
    content = json.loads((run.path / "bad_batch.json").read_text())
    assert [step["step"] for step in content["steps"]] == [7, 8]


def test_so_many_in_a_row_stop(recipe, tmp_path, monkeypatch):
    settings = recipe("optimisation.stop_after_bad_steps=3", OFTEN)
    calls = broken_steps(monkeypatch, {2, 3, 5, 6, 7}, "nan")
    with (
        pytest.warns(UserWarning, match="goes on"),
        pytest.raises(GateFailed, match="in step 7.*These were 3 in a row") as caught,
    ):
        train(settings, tmp_path)
    run = the_run(tmp_path)
    content = json.loads((run.path / "bad_batch.json").read_text())
    assert [step["step"] for step in content["steps"]] == [5, 6, 7]
    assert len({tuple(p["picture"] for p in step["pairs"]) for step in content["steps"]}) == 3
    assert checkpoints.newest(run.checkpoints) == 6
    assert "To go on from step 6, type: " in str(caught.value)
    # Those in a row are counted on: the next bad one is the third again.
    calls.clear()
    monkeypatch.undo()
    broken_steps(monkeypatch, {1}, "nan")
    with pytest.raises(GateFailed, match="in step 7.*These were 3 in a row"):
        resume(run)
    monkeypatch.undo()
    assert resume(run).adapter.is_file()


def test_fp16_that_overflows_at_every_scale_stops(recipe, tmp_path, monkeypatch):
    """An overflow alone halves the scale: 65,536 is below 1/1000 after 26 of them."""
    settings = recipe("precision=fp16", "optimisation.epochs=11")
    broken_steps(monkeypatch, range(1, 100), "gradients")
    with pytest.raises(GateFailed, match="not finite in fp16, even times 0.000976562, in step 27"):
        train(settings, tmp_path)
    assert len(steps_of(the_run(tmp_path))) == 26


# ------------------------------------------------------------------ memory

HUNGRY = """
import json, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from radapter import recipe, training
from radapter.training import loop
settings = recipe.load(sys.argv[1])
def on_step(m):
    if m["step"] == 2:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 4_000_000,) * 2)
        torch.nn.functional.normalize = hungry
real = torch.nn.functional.normalize
def hungry(x, dim):  # a tensor as a larger batch would make it
    return real(x, dim=dim) + torch.zeros(10_000_000)[:1]
try:
    training.train(settings, Path(sys.argv[2]), on_step=on_step)
except Exception as error:
    print(json.dumps([getattr(error, "exit_code", 1), str(error), getattr(error, "details", {})]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_out_of_memory_names_the_batch_and_the_next_setting(recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipes.dump(recipe(OFTEN)))
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(tmp_path / "recipe.yaml"), str(tmp_path / "runs")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    code, message, details = json.loads(done.stdout)
    assert code == 5, message
    run = the_run(tmp_path / "runs")
    for part in (
        "Out of memory on cpu in step 3", "batch_size 8", "micro_batch none",
        "optimisation.micro_batch=4",
        f"To go on from step 2, type: radapter train --resume {run.path}",
    ):  # fmt: skip
        assert part in message
    assert details == {
        "run": str(run.path), "step": 2, "batch_size": 8, "micro_batch": None,
        "try": "optimisation.micro_batch=4",
    }  # fmt: skip
    assert checkpoints.load(run.checkpoints).step == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 4 bytes."),
    ],
    ids=["cuda", "python", "system", "cpu"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["step", "pictures"])
def test_every_form_of_out_of_memory(recipe, tmp_path, monkeypatch, error, where):
    def fail(*_, **__):
        raise error

    if where == "step":
        monkeypatch.setattr(contrastive, "multi_positive", fail)
    else:
        monkeypatch.setattr(failures, "batches", fail)
    with pytest.raises(MissingDependency, match="Out of memory") as caught:
        train(recipe(), tmp_path)
    of_the_step = where == "step" or isinstance(error, torch.OutOfMemoryError)
    asked = "optimisation.micro_batch=4" if of_the_step else "a machine with more of it"
    assert f"Next to try: {asked}" in str(caught.value)
    assert "To go on from the start, type: " in str(caught.value)


def test_a_gpu_that_is_full_when_the_next_pictures_come_is_no_matter_of_workers(
    recipe, tmp_path, monkeypatch
):
    def full_gpu(batches, device):
        yield next(iter(batches))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(loop, "ahead", full_gpu)
    with pytest.raises(MissingDependency, match="in step 2, with optimisation.batch_size") as told:
        train(recipe(), tmp_path)
    assert "Next to try: optimisation.micro_batch=4" in str(told.value)
    assert "  " not in str(told.value)
    assert "workers" not in str(told.value)
    assert told.value.details["try"] == "optimisation.micro_batch=4"
    assert "To go on from step 1, type: " in str(told.value)


def test_an_error_that_is_a_bug_stays_what_it_is(recipe, tmp_path, monkeypatch):
    """Its state is saved all the same, for it was raised between two steps."""

    def on_step(m):
        if m["step"] == 4:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="^a bug$"):
        train(recipe(), tmp_path, on_step=on_step)
    assert checkpoints.newest(the_run(tmp_path).checkpoints) == 4
