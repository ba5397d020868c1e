"""Models whose parts do not fit each other: told when they are opened."""

import json

import open_clip
import pytest
import tiny

from radapter import models
from radapter.errors import BrokenInput
from radapter.models import fitting

TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 224}


@pytest.fixture
def folder(tmp_path):
    """A tiny timm tower in open_clip's format."""
    return tiny.write(tmp_path / "model", custom=True, vision=TIMM)


def change(folder, section, **values):
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"][section] |= values
    path.write_text(json.dumps(config))


def test_a_timm_tower_of_another_image_size(folder):
    models.load(folder)
    change(folder, "vision_cfg", image_size=336)
    with pytest.raises(BrokenInput, match=r"cannot take pictures of 336 x 336.*224.*") as caught:
        models.load(folder)
    assert caught.value.exit_code == 4


def test_features_of_two_sizes():
    loaded = tiny.build()
    loaded.model.text_projection = None  # width 16 is the dimension too
    loaded.model.visual.proj = None
    with pytest.raises(BrokenInput, match="features of 32 dimensions and texts of 16"):
        fitting.check(loaded)


def test_texts_that_are_too_long():
    loaded = tiny.build(text={"context_length": 20})
    loaded.tokenizer = open_clip.SimpleTokenizer(context_length=77)
    with pytest.raises(BrokenInput, match="cannot take texts of 77 tokens"):
        fitting.check(loaded)


def test_nothing_of_the_model_is_changed():
    loaded = tiny.build()
    before = loaded.weights_hash
    fitting.check(loaded)
    assert models.weights_hash(loaded.model.state_dict()) == before
    assert all(p.device.type == "cpu" for p in loaded.model.parameters())
