"""The benchmark of training runs on the built-in model."""

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
    "open_clip in bf16": {"method": "open_clip", "precision": "bf16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_case_is_measured(case):
    command = [sys.executable, str(SCRIPT), "one", json.dumps(CASES[case]), "emoji-clip", "2", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seconds"] > 0
    assert found["peak"] > 10**8


@pytest.mark.slow
def test_a_case_that_fails_is_named_and_the_others_are_measured(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import training

    cases = {"ours": {}, "none": {"method": "absent"}}
    with pytest.raises(SystemExit):
        training.measure(cases, "emoji-clip", 2, 1, 1)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert table[1].startswith("| ours | ")
    assert table[2] == "| none | exit code 1 | | | | |"
