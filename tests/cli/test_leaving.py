"""How a process ends whose ranks cannot be waited for: it says why, and is gone."""

import subprocess
import sys

FAILS_IN_A_GROUP = """
import atexit, sys
import torch.distributed as dist
from radapter import distributed, training
from radapter.errors import BrokenInput
from radapter_cli.main import run

WHERE = sys.argv.pop()

def fail(recipe, **hooks):
    if WHERE == "in":
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    print("so far")
    raise BrokenInput("No such file.")

atexit.register(print, "the usual end")
training.train = fail
run()
"""


def ends(where):
    command = [sys.executable, "-c", FAILS_IN_A_GROUP, "train", "emoji", where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4, done.stderr
    assert "No such file." in done.stderr
    assert "so far" in done.stdout
    return done.stdout


def test_a_process_that_is_still_in_a_group_ends_at_once():
    assert "the usual end" not in ends("in")
    assert "the usual end" in ends("out of")
