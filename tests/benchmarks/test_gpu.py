"""benchmarks/gpu.py, tried on a CPU: steps run, those that fail are named, the table says all."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from radapter.errors import MissingDependency

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


@pytest.fixture
def steps(gpu, training, monkeypatch, tmp_path):
    """The module of the steps, as one of them on a CPU, and what rows it has written."""
    monkeypatch.setattr(sys, "argv", ["gpu_steps.py", "training", "cpu", "1", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "gpu_steps", raising=False)
    import gpu_steps

    yield gpu_steps
    del sys.modules["gpu_steps"]


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return {row["name"]: (row["value"], row["ok"]) for row in rows}


def test_what_a_card_has_no_room_for_is_a_figure(steps, tmp_path):
    with steps.tried("large"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    with steps.tried("in training"):
        raise MissingDependency("Not enough") from torch.OutOfMemoryError("CUDA out of memory.")
    with steps.tried("wrong"):
        raise ValueError("no number")
    assert rows_of(tmp_path) == {
        "large": ("does not fit", None),
        "in training": ("does not fit", None),
        "wrong": ("ValueError: no number", False),
    }


def test_batches_fit_the_card(gpu):
    cards = {141e9: 512, 85e9: 512, 51e9: 256, 42e9: 256, 25e9: 128, 17e9: 64, 8e9: 32, 1e9: 8}
    assert {memory: gpu.fitting(512, memory) for memory in cards} == cards
    assert gpu.fitting(256, 42e9) == 128


def test_rows_are_written_though_the_run_on_the_cpu_does_not_end(steps, tmp_path, monkeypatch):
    killed = []

    class Endless:
        def __init__(self, *arguments, **more):
            pass

        def wait(self, timeout):
            assert timeout <= steps.TIME_FOR_THE_CPU
            raise subprocess.TimeoutExpired("training", timeout)

        def kill(self):
            killed.append(self)

    facts = {"run": "x", "losses": [2.0, 1.0], "seconds": 1.0, "rate": 3.0, "waits": 0.5}
    monkeypatch.setattr(steps.subprocess, "Popen", Endless)
    monkeypatch.setattr(steps, "trained", lambda *arguments, **more: facts)
    steps.training()
    rows = rows_of(tmp_path)
    assert killed
    assert rows["the run on the CPU: exit code"] == ("none: it did not end in time", False)
    assert rows["fp32: losses"] == rows["bf16: losses"] == ("2.000 to 1.000", None)


def test_the_steps_take_as_long_as_is_said(gpu):
    assert "at most 66 minutes" in gpu.__doc__
    assert sum(limit for limit, _ in gpu.STEPS.values()) <= 66 * 60


@pytest.mark.slow
def test_steps_run_on_a_cpu(tmp_path):
    chosen = ("machine", "nccl")
    command = [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu", "--tiny"]
    command += ["--out", str(tmp_path), *(word for name in chosen for word in ("--only", name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, done.stdout + log
    assert done.stdout.strip() == (tmp_path / "table.md").read_text().strip()
    for name in chosen:
        assert f"### {name}: " in done.stdout
    assert (
        "| ok | 48 gradients are summed, and one that is not there | True | True |" in done.stdout
    )
    assert "3 ok, 0 bad" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == set(chosen)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_step_that_does_not_end_is_stopped_with_what_it_started(gpu, tmp_path, monkeypatch):
    (tmp_path / "gpu_steps.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open(sys.argv[4] + '/pid', 'w').write(str(child.pid))\n"
        "sys.exit(7) if sys.argv[1] == 'fails' else time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    for name, limit, said in (("fails", 30, "exit code 7"), ("hangs", 3, "stopped after 3 s")):
        log = tmp_path / "log"
        assert gpu.run_step(name, "cpu", True, tmp_path, log, limit) == said
        child, patience = int((tmp_path / "pid").read_text()), time.monotonic() + 20
        while is_alive(child):
            assert time.monotonic() < patience


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # ended, though nobody has asked for its exit code yet


def test_the_table_has_verdicts_figures_and_steps_that_failed(gpu):
    rows = [
        {"step": "nccl", "name": "sums", "value": "True", "want": "True", "ok": True},
        {"step": "nccl", "name": "time", "value": "3 ms", "want": "", "ok": None},
        {"step": "parity", "name": "cosine", "value": "0.5", "want": "1e-5", "ok": False},
    ]
    text = gpu.table(rows, {"parity": ("exit code 1", 3.2), "nccl": ("done", 1.0)})
    assert "| ok | sums | True | True |" in text
    assert "| **BAD** | cosine | 0.5 | 1e-5 |" in text
    assert "|  | time | 3 ms |  |" in text
    assert text.endswith("1 ok, 1 bad, 1 figures; steps that did not end well: parity.\n")
    assert text.index("### parity") < text.index("### nccl")


def test_every_step_is_there(gpu):
    source = (FOLDER / "gpu_steps.py").read_text()
    assert all(f"\ndef {name}() -> None:" in source for name in gpu.STEPS)
