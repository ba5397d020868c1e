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
    "open_clip": {"method": "open_clip"},
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
