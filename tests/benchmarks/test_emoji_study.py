"""The study's tables in the documentation are those of the numbers that are committed."""

import importlib
from pathlib import Path

from radapter.reporting import study

ROOT = Path(__file__).parents[2]


def test_its_tables_are_made_of_the_committed_numbers(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("emoji_study")
    page = (ROOT / "docs" / "study-tables.md").read_text(encoding="utf-8").splitlines()
    module.tables()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(printed) > 200
    assert [line for line in printed if line not in page] == []


def test_the_demo_finds_its_methods():
    assert set(study.METHODS) <= study.table()["methods"].keys()
