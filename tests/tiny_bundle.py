"""One bundle exported from a tiny model.

Each test folder's conftest imports the fixtures it wants; the bundle is exported once a session.
"""

import functools
import shutil
import tempfile
from pathlib import Path

import pytest
from tiny import build

from radapter import models
from radapter.export import export_bundle

FACTS = {
    "base_model": "tiny", "base_hash": "0" * 64, "recipe": "none", "recipe_hash": "1" * 64,
    "method": "full", "alpha": 0.5,
}  # fmt: skip
NAMES = ["cat", "dog", "Ωmega"]
PROMPTS = [["a cat", "a photo of a cat"], ["a dog"], ["an omega", "the letter omega", "Ω"]]


def make(*, custom: bool = False, seed: int = 0, **text: object) -> models.LoadedModel:
    """A tiny model; `text` changes its text tower."""
    return build(custom=custom, seed=seed, text=text)


@functools.cache
def _exported() -> tuple[models.LoadedModel, tempfile.TemporaryDirectory]:
    loaded, folder = make(), tempfile.TemporaryDirectory()
    classes = {"names": NAMES, "prompts": PROMPTS}
    export_bundle(loaded, Path(folder.name) / "bundle", facts=FACTS, classes=classes)
    return loaded, folder


@pytest.fixture(scope="session")
def tiny() -> models.LoadedModel:
    """The model of `exported`."""
    return _exported()[0]


@pytest.fixture(scope="session")
def exported() -> Path:
    """A bundle for reading only."""
    return Path(_exported()[1].name) / "bundle"


@pytest.fixture
def bundle_copy(exported: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return shutil.copytree(exported, tmp_path / "bundle")
