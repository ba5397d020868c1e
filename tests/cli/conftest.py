"""The command line in this process: fast, and every way out is an exit code."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny

from radapter import merging
from radapter.run import Run
from radapter.training import train


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """`cli("merge", "--alpha", "0.5")` in an empty working folder."""
    from radapter_cli.main import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("RADAPTER_DATA", "")

    def call(*arguments: str) -> Outcome:
        data_root = os.environ["RADAPTER_DATA"]
        monkeypatch.setattr(sys, "argv", ["radapter", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            run()
        # A command is a process of its own: the next one does not have this one's --data-root.
        monkeypatch.setenv("RADAPTER_DATA", data_root)
        captured = capfd.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def _trained(tiny_folder: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3")
    return train(recipe, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def trained(_trained: Run, tmp_path: Path) -> Run:
    """A trained run in ./runs of the working folder."""
    return Run(shutil.copytree(_trained.path, tmp_path / "runs" / _trained.name))


@pytest.fixture
def merged(trained: Run) -> Run:
    """The same, merged at the recipe's alpha."""
    merging.write_merged(trained, 0.5)
    return trained


@pytest.fixture
def recipe_file(tiny_folder: Path, shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.text(tiny_folder, shapes))
    return path
