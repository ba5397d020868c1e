"""Scripts of benchmarks/ as modules, where tests have packages of the same names."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def training(monkeypatch):
    """benchmarks/training.py, and not the tests of training."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "training", raising=False)
    yield importlib.import_module("training")
    del sys.modules["training"]  # what was there before comes back with the patch
