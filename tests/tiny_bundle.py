"""Tiny models with random weights, and one bundle exported from the first of them.

Each test folder's conftest imports the fixtures it wants; the bundle is exported once a session.
"""

import functools
import shutil
import tempfile
from pathlib import Path

import open_clip
import pytest
import torch

from radapter import models
from radapter.export import export_bundle

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
FACTS = {
    "base_model": "tiny", "base_hash": "0" * 64, "recipe": "none", "recipe_hash": "1" * 64,
    "method": "full", "alpha": 0.5,
}  # fmt: skip
NAMES = ["cat", "dog", "Ωmega"]
PROMPTS = [["a cat", "a photo of a cat"], ["a dog"], ["an omega", "the letter omega", "Ω"]]


def make(*, custom: bool = False, seed: int = 0, **text: object) -> models.LoadedModel:
    """A tiny model; `text` changes its text tower."""
    model_cfg = {"embed_dim": 16, "vision_cfg": dict(VISION), "text_cfg": {**TEXT, **text}}
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(**model_cfg)
    cfg = open_clip.transform.PreprocessCfg(size=32)
    return models.LoadedModel(
        "tiny",
        model.eval(),
        open_clip.SimpleTokenizer(context_length=model_cfg["text_cfg"]["context_length"]),
        open_clip.transform.image_transform_v2(cfg, is_train=False),
        {
            "model_cfg": {**model_cfg, **({"custom_text": True} if custom else {})},
            "preprocess_cfg": cfg.__dict__,
        },
    )


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
