"""The data card has the counts that the script prints."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["by_kind", "by_least", "by_designer"])
def test_the_data_card_has_them(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    counts = importlib.import_module("icon_counts")
    card = (ROOT / "docs/data-icons.md").read_text(encoding="utf-8")
    assert getattr(counts, name)() in card
