"""Ctrl-C and SIGKILL against the real command: nothing finished is lost, the result is the same."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny

EPOCHS = "optimisation.epochs=150"


@pytest.fixture
def start(tmp_path, tiny_folder, shapes):
    (tmp_path / "tiny.yaml").write_text(tiny.text(tiny_folder, shapes))

    def call(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "radapter_cli", "train", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return call


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def the_run(tmp_path):
    (run,) = (p for p in (tmp_path / "runs").iterdir() if not p.name.startswith("."))
    return run


def steps_logged(tmp_path):
    return sum(1 for p in tmp_path.glob("runs/*/metrics.jsonl") for _ in p.open())


@pytest.mark.slow
def test_interrupted_and_killed_runs_end_in_the_same_adapter(start, tmp_path):
    process = start("tiny.yaml", EPOCHS)
    assert process.wait() == 0, process.communicate()
    run = the_run(tmp_path)
    expected = (run / "adapter.safetensors").read_bytes()
    for path in sorted(run.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    run.rmdir()

    process = start("tiny.yaml", EPOCHS)
    wait_for(lambda: steps_logged(tmp_path) > 20, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    run = the_run(tmp_path)
    assert f"radapter train --resume runs/{run.name}" in err
    assert not (run / "adapter.safetensors").exists()
    assert (run / "checkpoints" / "newest").is_file()

    process = start("--resume")
    seen = steps_logged(tmp_path)
    wait_for(lambda: steps_logged(tmp_path) > seen + 20, process)
    process.kill()
    process.communicate()
    assert not (run / "adapter.safetensors").exists()

    process = start("--resume", str(run.relative_to(tmp_path)))
    assert process.wait() == 0, process.communicate()
    assert (run / "adapter.safetensors").read_bytes() == expected
    assert not list(run.rglob("*.tmp"))
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_reaches_the_workers_too(start, tmp_path, number):
    """The whole process group gets Ctrl-C at a terminal, and SIGTERM from many a batch system; one
    line says so, and --json stays one object."""
    process = start("tiny.yaml", "optimisation.epochs=20000", "workers=2", "--json")
    wait_for(lambda: steps_logged(tmp_path) > 1, process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("Stopping after this step") == 1
    content = json.loads(out)
    assert content["error"]["code"] == 130
    assert content["run"] == f"runs/{the_run(tmp_path).name}"
    assert list(the_run(tmp_path).glob("checkpoints/step-*"))


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(start, blocked):
    process = start("tiny.yaml")
    blocked(process, 1)
    process.send_signal(signal.SIGINT)
    assert any("press again" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)  # the step itself lasts until the test ends
    assert process.returncode == 130
    assert "Interrupted." in err
    assert "Stopped after step" not in err
    assert "Traceback" not in err
