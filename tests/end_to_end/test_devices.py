"""`radapter train --devices 2` and torchrun against the real command: a process that dies, signals,
errors, and a run that goes on after each of them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny
from safetensors.torch import load_file

from radapter.training import train

pytestmark = pytest.mark.slow
LONG = ("optimisation.epochs=3000", "checkpoints.every_seconds=0.3")
SHORT = ("optimisation.epochs=40", "checkpoints.every_seconds=0.3", "optimisation.eps=1e-3")


@pytest.fixture
def start(tmp_path, tiny_folder, shapes):
    (tmp_path / "tiny.yaml").write_text(tiny.text(tiny_folder, shapes))

    started = []

    def call(*arguments, program=("-m", "radapter_cli")):
        process = subprocess.Popen(
            [sys.executable, *program, "train", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:  # what a failed test leaves; the ranks end with it
        process.kill()


def end(process):
    """(exit code, stdout, stderr); a hang is a failure."""
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def training(tmp_path, process):
    """Wait until there is a checkpoint, and give the pids of the ranks."""
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/checkpoints/step-*/state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = subprocess.check_output(["ps", "--ppid", str(process.pid), "-o", "pid="], text=True)
    ranks = {}
    for pid in map(int, children.split()):
        with open(f"/proc/{pid}/environ") as file:
            variables = dict(v.partition("=")[::2] for v in file.read().split("\0"))
        ranks[int(variables["RANK"])] = pid
    assert sorted(ranks) == [0, 1]
    return ranks


def test_a_killed_process_stops_the_job_and_a_restart_ends_as_one_process_does(
    start, tmp_path, tiny_folder, shapes
):
    process = start("tiny.yaml", *SHORT, "--devices", "2")
    os.kill(training(tmp_path, process)[1], signal.SIGKILL)
    code, out, err = end(process)
    assert (code, out) == (128 + signal.SIGKILL, "")
    (error,) = (line for line in err.splitlines() if line.startswith("error:"))
    assert "Process 1 of 2 was killed by SIGKILL" in error
    assert "radapter train --resume --devices 2" in error
    assert err.count("Run: ") == 1
    assert "2 x cpu" in err

    code, out, err = end(start("--resume", "--devices", "2", "--json"))
    assert code == 0, err
    said = json.loads(out)  # once
    alone = train(tiny.recipe(tiny_folder, shapes, *SHORT), tmp_path / "alone")
    expected, found = load_file(alone.adapter), load_file(tmp_path / said["adapter"])
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-3 * value.abs().max()
    lines = (tmp_path / said["run"] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 121))


def test_ctrl_c_stops_all_with_the_state_saved_once(start, tmp_path):
    process = start("tiny.yaml", *LONG, "--devices", "2")
    training(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the ranks are in other groups
    code, out, err = end(process)
    assert (code, out) == (130, ""), err
    (said,) = (line for line in err.splitlines() if line.startswith("Stopped after step"))
    step = int(said.split()[3].rstrip(";"))
    (newest,) = tmp_path.glob("runs/*/checkpoints/newest")
    assert newest.read_text().strip() == f"step-{step:08d}"
    assert said.endswith("--devices 2")
    assert "error" not in err
    assert "Traceback" not in err


def test_a_second_ctrl_c_stops_all_at_once(start, blocked):
    process = start("tiny.yaml", "workers=1", "--devices", "2", "--json")
    ranks = blocked(process, 2)
    process.send_signal(signal.SIGINT)
    assert any("press again" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)  # until the last process of theirs has closed them
    assert process.returncode == 130
    assert json.loads(out)["error"] == {"code": 130, "message": "Interrupted."}
    assert "Stopped after step" not in err
    assert "Traceback" not in err
    assert not any(os.path.exists(f"/proc/{pid}") for pid in ranks)


def test_a_signal_to_all_processes_is_not_a_second_one(start, blocked, tmp_path):
    """As systemd and batch systems send it: a rank gets it again from the command."""
    process = start("tiny.yaml", "--devices", "2")
    ranks = blocked(process, 2)
    for pid in [*ranks, process.pid]:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)  # for the command to pass it on
    (tmp_path / "go-on").touch()
    code, out, err = end(process)
    assert (code, out) == (130, ""), err
    assert "Stopped after step 1;" in err
    (newest,) = tmp_path.glob("runs/*/checkpoints/newest")
    assert newest.read_text().strip() == "step-00000001"


def test_processes_do_not_outlive_a_killed_command(start, tmp_path):
    process = start("tiny.yaml", *LONG, "--devices", "2")
    ranks = training(tmp_path, process)
    process.kill()
    deadline = time.monotonic() + 100
    while any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (state,) = tmp_path.glob("runs/*/checkpoints/newest")
    assert state.read_text().startswith("step-")


def test_an_error_is_said_once_with_its_exit_code(start, tmp_path):
    code, out, err = end(start("tiny.yaml", "data.root=nowhere", "--devices", "2", "--json"))
    said = json.loads(out)
    assert (code, said["error"]["code"]) == (4, 4)
    assert (
        said["error"]["message"]
        == "No such folder: nowhere. Correct data.root, or give --data-root."
    )
    assert "nowhere" not in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_torchrun_itself(start, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    code, out, err = end(start("tiny.yaml", program=(*torchrun, "-m", "radapter_cli")))
    assert code == 0, err
    assert out.count("Adapter: ") == 1
    assert len(list(tmp_path.glob("runs/*/adapter.safetensors"))) == 1
