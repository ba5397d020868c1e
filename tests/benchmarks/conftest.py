"""Scripts of benchmarks/ as modules, where tests have packages of the same names."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(monkeypatch, name):
    """A script, and not the tests of that name, until the patch ends."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    del sys.modules[name]  # what was there before comes back with the patch


@pytest.fixture
def training(monkeypatch):
    """benchmarks/training.py."""
    yield from script(monkeypatch, "training")


@pytest.fixture
def inference(monkeypatch):
    """benchmarks/inference.py."""
    yield from script(monkeypatch, "inference")


@pytest.fixture
def pretraining(monkeypatch):
    """benchmarks/pretraining.py."""
    yield from script(monkeypatch, "pretraining")
