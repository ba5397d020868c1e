"""The Hugging Face forms: token ids against open_clip's, settings against the model's own."""

import json

import pytest
import torch
from open_clip import SimpleTokenizer
from tiny_bundle import make
from tokenizers import Tokenizer

from radapter.errors import UsageError
from radapter.export.configs import write_config, write_preprocessor, write_tokenizer
from radapter.export.golden import DIFFERENT, EQUAL


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    def convert(context_length=77, dynamic=False, **kwargs):
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer = SimpleTokenizer(context_length=context_length, **kwargs)
        write_tokenizer(folder, tokenizer, context_length=context_length, dynamic=dynamic)
        return tokenizer, Tokenizer.from_file(str(folder / "tokenizer.json")), folder

    return convert


@pytest.mark.parametrize("context_length", [77, 16])
def test_ordinary_texts_have_open_clips_ids(convert, context_length):
    ours, converted, _ = convert(context_length)
    expected = dict(zip(EQUAL, ours(list(EQUAL)).tolist(), strict=True))
    got = dict(zip(EQUAL, (row.ids for row in converted.encode_batch(list(EQUAL))), strict=True))
    assert got == expected


def test_texts_known_to_differ_still_do(convert):
    """If one of them becomes equal, it belongs in the other list, and the card is out of date."""
    ours, converted, _ = convert()
    assert [t for t in DIFFERENT if converted.encode(t).ids == ours([t])[0].tolist()] == []


def test_a_dynamic_batch_is_padded_to_its_longest(convert):
    ours, converted, folder = convert(dynamic=True)
    texts = ["a cat", "a photo of two dogs"]
    rows = [row.ids for row in converted.encode_batch(texts)]
    assert [len(row) for row in rows] == [7, 7]
    assert torch.equal(torch.tensor(rows), ours(texts)[:, :7])
    special = json.loads((folder / "special_tokens_map.json").read_text())
    # as a pad token of its own, "!" in a text would turn into padding in transformers
    assert "!" not in special.values()


def test_case_is_kept_where_open_clip_keeps_it(convert):
    ours, converted, _ = convert(clean="whitespace")
    texts = ["A Cat", "a cat", "It's  US"]
    assert [row.ids for row in converted.encode_batch(texts)] == ours(texts).tolist()


@pytest.mark.parametrize("kwargs", [{"clean": "canonicalize"}, {"reduction_mask": "simple"}])
def test_tokenizers_without_such_a_form_are_refused(convert, kwargs):
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        convert(**kwargs)


def test_the_clip_form_says_what_the_model_is(tmp_path):
    loaded = make()
    write_config(tmp_path, loaded.config["model_cfg"], 14.0)
    config = json.loads((tmp_path / "config.json").read_text())
    vision, text, model = config["vision_config"], config["text_config"], loaded.model
    assert config["model_type"] == "clip"
    assert config["projection_dim"] == model.visual.output_dim
    assert vision["hidden_size"] == model.visual.conv1.weight.shape[0]
    assert vision["patch_size"] == model.visual.conv1.weight.shape[-1]
    block = model.visual.transformer.resblocks[0]
    assert vision["num_hidden_layers"] == len(model.visual.transformer.resblocks)
    assert vision["num_attention_heads"] == block.attn.num_heads
    assert vision["intermediate_size"] == block.mlp.c_fc.out_features
    assert vision["layer_norm_eps"] == block.ln_1.eps
    assert text["max_position_embeddings"] == model.positional_embedding.shape[0]
    assert (text["vocab_size"], text["hidden_size"]) == model.token_embedding.weight.shape
    assert text["num_attention_heads"] == model.transformer.resblocks[0].attn.num_heads
    assert text["intermediate_size"] == model.transformer.resblocks[0].mlp.c_fc.out_features
    assert text["eos_token_id"] == loaded.tokenizer.eot_token_id
    assert text["hidden_act"] == vision["hidden_act"] == "gelu"


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_what_is_no_clip_of_theirs_does_not_pretend(tmp_path, text):
    write_config(tmp_path, make(custom=True, **text).config["model_cfg"], 14.0)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "open_clip"
    assert text.items() <= config["open_clip"]["text_cfg"].items()


def test_preprocessing_that_has_no_such_form_does_not_pretend(tmp_path):
    cfg = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    read = lambda: json.loads((tmp_path / "preprocessor_config.json").read_text())  # noqa: E731
    write_preprocessor(tmp_path, {**cfg, "resize_mode": "squash"})
    assert read()["size"] == {"height": 32, "width": 32}
    assert not read()["do_center_crop"]
    assert read()["resample"] == 2
    write_preprocessor(tmp_path, {**cfg, "resize_mode": "longest"})
    assert list(read()) == ["open_clip"]
    write_preprocessor(tmp_path, {**cfg, "size": (32, 48), "resize_mode": "shortest"})
    assert list(read()) == ["open_clip"]
