"""A folder as a reader has it, with small pictures and a tiny model."""

import shutil

import pytest
import tiny
from cli.conftest import cli

from radapter import init

__all__ = ["cli"]


@pytest.fixture(scope="session")
def small(tiny_folder):
    """Overrides that make a recipe's training a matter of seconds."""
    short = ["optimisation.epochs=1", "optimisation.batch_size=8", "optimisation.warmup_steps=0"]
    return [f"model={tiny_folder}", "device=cpu", "workers=0", "precision=fp32", *short]


@pytest.fixture(scope="session")
def _drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    tiny.draw_shapes(folder / "my-data", each=20)
    return folder


@pytest.fixture
def own_folder(_drawn, tmp_path, monkeypatch):
    """The working folder: my-data/ and my-test-data/ of class folders, photos/ of pictures."""
    shutil.copytree(_drawn / "my-data", tmp_path / "my-data")
    shutil.copytree(_drawn / "my-data", tmp_path / "my-test-data")
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(sorted((_drawn / "my-data").rglob("0*.png"))):
        shutil.copy(path, tmp_path / "photos" / f"{number:02d}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_recipe(own_folder, tiny_folder):
    """my-data.yaml as `radapter init` writes it, but for the model."""
    text = init.start("my-data/").text
    (model,) = [line for line in text.splitlines() if line.startswith("model: ")]
    path = own_folder / "my-data.yaml"
    path.write_text(text.replace(model, f"model: {tiny_folder}"))
    return path
