"""Retrieval with its intervals takes little memory beyond the features, whatever the sets' size."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, types
import numpy as np
import torch
from radapter.data import Dataset
from radapter.evaluation.tasks import retrieval
from radapter.evaluation.result import _summary
from radapter.evaluation.suite_dataset import Match

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

generator = torch.Generator().manual_seed(0)
def features(count):
    rows = torch.randn(count, 512, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1)

pictures, texts = features(PICTURES), features(5 * PICTURES)
captions = [[f"{i} {k}" for k in range(5)] for i in range(PICTURES)]
dataset = Dataset("made up", [str(i) for i in range(PICTURES)], read=None, captions=captions,
                  groups=list(range(PICTURES)))
given = types.SimpleNamespace(
    captions=lambda wanted: texts[: len(wanted)], by_tokens=lambda captions: captions
)
suite = types.SimpleNamespace(identical_captions="apart")
described = types.SimpleNamespace(match=Match())
before = peak()
scored = retrieval.score(dataset, pictures, given, suite=suite, described=described,
                         clusters=np.arange(PICTURES))
for item in scored.metrics.values():
    _summary([item])
print(peak() - before)
"""


@pytest.mark.slow
def test_coco_is_ranked_in_bounded_memory():
    """5,000 x 25,000: all similarities alone are 500 MB, all resamples 80 MB a metric."""
    assert grown(5_000) < 500


@pytest.mark.slow
def test_intervals_of_many_pictures_are_drawn_in_bounded_memory():
    """All resamples of 20,000 pictures at once are 320 MB, and as much again as floats."""
    script = """
import resource
import numpy as np
from radapter.evaluation.intervals import mean_interval

clusters = np.repeat(np.arange(20_000), 5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mean_interval([clusters % 3 == 0], [clusters])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    assert run(script) < 150


def grown(pictures: int) -> float:
    """MB beyond the features."""
    return run(SCRIPT.replace("PICTURES", str(pictures)))


def run(script: str) -> float:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
