import os
import time

import pytest
from tiny_bundle import bundle_copy, exported, tiny

__all__ = ["bundle_copy", "exported", "tiny"]

BLOCKED = """
import os, time
from radapter.training import loop

def step(*arguments, really=loop.optimizer_step):
    open(f"in-a-step-{os.getpid()}", "w").close()
    while not os.path.exists("go-on"):
        time.sleep(0.02)
    return really(*arguments)

loop.optimizer_step = step
"""


@pytest.fixture
def blocked(tmp_path, monkeypatch):
    """Commands started from here on, in `tmp_path`, stay in their first step of training until
    there is a file `go-on`. Gives a call that waits until so many processes are in it: their pids.
    """
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKED)  # ranks, too: the launcher starts those
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def wait(process, number):
        deadline = time.monotonic() + 200
        while len(found := list(tmp_path.glob("in-a-step-*"))) < number:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return [int(path.name.rpartition("-")[2]) for path in found]

    yield wait
    (tmp_path / "go-on").touch()  # what a failed test leaves ends by itself
