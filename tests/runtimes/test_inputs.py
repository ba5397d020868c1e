"""A bundle's own tokenizer and preprocessing, against open_clip's."""

import json

import pytest
import torch
from PIL import Image

from radapter.errors import BrokenInput
from radapter.export.huggingface import write_preprocessor
from radapter.runtimes.inputs import BundleInputs, preprocess_cfg

TEXTS = ["a photo of a tabby cat.", "", "don't look at 2 dogs!", "long " * 100]


def test_tokens_are_open_clips_cut_to_the_longest(exported, tiny):
    inputs = BundleInputs(exported)
    assert torch.equal(inputs.tokenizer(TEXTS), tiny.tokenizer(TEXTS))  # one has full length
    short = inputs.tokenizer(TEXTS[:3])
    assert torch.equal(short, tiny.shorten(tiny.tokenizer(TEXTS[:3])))
    assert inputs.shorten(short) is short


def test_a_text_tower_that_wants_full_length_gets_it(bundle_copy, tiny):
    path = bundle_copy / "manifest.json"
    path.write_text(path.read_text().replace('"text_length": "dynamic"', '"text_length": "fixed"'))
    assert torch.equal(BundleInputs(bundle_copy).tokenizer(TEXTS[:1]), tiny.tokenizer(TEXTS[:1]))


def test_pictures_are_prepared_as_open_clip_does(exported, tiny):
    picture = Image.effect_noise((50, 41), 60).convert("RGB")
    inputs = BundleInputs(exported)
    torch.testing.assert_close(inputs.preprocess(picture), tiny.preprocess(picture))
    assert inputs.config["preprocess_cfg"]["size"] == [32, 32]


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_every_form_that_is_written_is_read(tmp_path, mode, interpolation):
    own = {"size": (24, 24), "mode": "RGB", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.2),
           "interpolation": interpolation, "resize_mode": mode, "fill_color": 0}  # fmt: skip
    write_preprocessor(tmp_path, own)
    found = preprocess_cfg(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()} == own


def test_damaged_files_are_named(bundle_copy):
    (bundle_copy / "tokenizer.json").write_text("{")
    with pytest.raises(BrokenInput, match=r"of bundle .* cannot be read: .* Export it again"):
        BundleInputs(bundle_copy)
