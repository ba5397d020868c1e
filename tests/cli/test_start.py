"""Commands that only read JSON and YAML start without torch, open_clip and
transformers; those that compute nothing start without numpy too."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ABSENT = ["torch", "torchvision", "open_clip", "transformers", "onnx", "onnxruntime"]
COMPUTE = ("runs show", "compare runs/*", "report runs/*", "study EXAMPLE --tables")

WITHOUT = """
import sys

ABSENT = {absent}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ImportError(name + " is imported")

sys.meta_path.insert(0, Absent())
from radapter_cli.main import run
run()
"""


COMMANDS = (
    "--help",
    "--version",
    "recipes",
    "recipes show emoji",
    "recipes schema",
    "recipes schema suite",
    "recipes schema study",
    "runs",
    "runs show",
    "compare runs/*",
    "report runs/*",
    "data list",
    "train --help",
    "export --help",
    "eval --help",
    "study --help",
    "study EXAMPLE --tables",
)
EXAMPLE = f"emoji --results {Path(__file__).parents[1] / 'study' / 'example'}"  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_it_starts_without_torch(command, merged, record_property):
    folder = merged.path.parents[1]
    words = command.replace("runs/*", f"runs/{merged.name}").replace("EXAMPLE", EXAMPLE).split()
    absent = ABSENT if command in COMPUTE else [*ABSENT, "numpy"]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=absent), *words],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr
    record_property("meter", f"radapter {command}: {seconds:.1f} s to start and end")
