"""The benchmark of training runs on the built-in model."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
CASES = {
    "ours": {},
    "as its authors run it": {"off": ["short texts", "folding", "copy-free attention"]},
    "full": {"method": "full"},
    "multiway": {"method": "multiway"},
    "open_clip in bf16": {"method": "open_clip", "precision": "bf16"},
}
WHOLE = ("full", "open_clip in bf16")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_case_is_measured(case):
    command = [
        sys.executable,
        str(SCRIPT),
        "one",
        json.dumps(CASES[case]),
        "pictogram-clip",
        "2",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seconds"] > 0
    assert found["peak"] > 10**8
    if case in WHOLE:  # the temperature may stay as it is
        assert found["stored"] == pytest.approx(1, abs=1e-3)
    else:
        assert 0 < found["stored"] < 0.5


def test_a_case_without_room_is_named_and_no_failure(training, monkeypatch, capsys):
    done = {
        "ours": (0, '{"seconds": 1, "peak": 2e6, "stored": 0.021}'),
        "full": (5, ""),
        "open_clip": (1, ""),
    }

    def run(command, **more):
        name = json.loads(command[3])["method"]
        return subprocess.CompletedProcess(command, *done[name])

    monkeypatch.setattr(training.subprocess, "run", run)
    for names, fails in ((("ours", "full"), False), (("full",), False), (tuple(done), True)):
        cases = {name: {"method": name} for name in names}
        with pytest.raises(SystemExit) if fails else contextlib.nullcontext():
            training.measure(cases, "pictogram-clip", 2, 1, 1)
        table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
        assert "| full | does not fit | | | | | |" in table
        ours = "| ours | 1000 ms | 1.00 | 1.00 | 2 MB | 1.00 | 2.1 % |"
        assert (ours in table) == ("ours" in names)


def test_no_lever_is_the_first_case_again(training, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "measure", lambda cases, *more: seen.append(list(cases)))
    training.levers(precision="bf16")
    training.levers(precision="fp32")
    assert seen[1] == list(training.LEVERS)
    assert seen[0] == [name for name in training.LEVERS if name != "bf16"]


@pytest.mark.slow
def test_a_case_that_fails_is_named_and_the_others_are_measured(training, capsys):
    cases = {"ours": {}, "none": {"method": "absent"}}
    with pytest.raises(SystemExit):
        training.measure(cases, "pictogram-clip", 2, 1, 1)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert table[1].startswith("| ours | ")
    assert table[2] == "| none | exit code 1 | | | | | |"
