"""Peak memory: what the log says of it is what was taken."""

import json
import subprocess
import sys
import textwrap

import pytest
import tiny
import torch

from radapter.training import memory, train

MB = 2**20


@pytest.mark.slow
def test_what_the_process_takes():
    """In a process of its own, as the peak of this one may lie behind it."""
    code = """
        import torch
        from radapter.training import memory
        before = memory.peak(torch.device("cpu"))
        block = torch.ones(100 * 2**20)
        after = memory.peak(torch.device("cpu"))
        del block
        later = memory.peak(torch.device("cpu"))
        print(before["memory_of"], *(f["peak_memory_bytes"] for f in (before, after, later)))
    """
    out = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True)
    kind, *peaks = out.split()
    before, after, later = map(int, peaks)
    assert kind == "process"
    # 400 MB more, less what loading torch took for a moment before.
    assert 250 * MB < after - before < 430 * MB
    assert later > after - MB  # a peak does not go down, but for the kernel's batched counting


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_the_device_takes():
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    before = memory.peak(device)["peak_memory_bytes"]
    block = torch.ones(50 * MB, device=device)
    del block
    after = memory.peak(device)
    assert after["memory_of"] == "cuda"
    assert after["peak_memory_bytes"] - before == pytest.approx(200 * MB, abs=4 * MB)


def test_every_line_of_the_log_has_it(tiny_folder, shapes, tmp_path):
    run = train(tiny.recipe(tiny_folder, shapes, "optimisation.epochs=1"), tmp_path)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    peaks = [line["peak_memory_bytes"] for line in lines]
    assert peaks == sorted(peaks)
    assert 50 * MB < peaks[-1] <= memory.peak(torch.device("cpu"))["peak_memory_bytes"]
    assert {line["memory_of"] for line in lines} == {"process"}
