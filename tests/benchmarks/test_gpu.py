"""benchmarks/gpu.py, tried on a CPU: steps run, those that fail are named, the table says all."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


@pytest.mark.slow
def test_steps_run_on_a_cpu(tmp_path):
    chosen = ("machine", "host", "evaluation", "nccl")
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
    assert "6 ok, 0 bad" in done.stdout
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
