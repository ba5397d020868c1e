"""Hugging Face CLIP folders: against transformers where it is installed, else written by hand."""

import json
import shutil

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from radapter import models
from radapter.errors import BrokenInput, UsageError
from radapter.export import configs
from radapter.models import huggingface

PICTURE = Image.effect_noise((70, 50), 90).convert("RGB")


def state_by_hand(model):
    """Hugging Face's state dict of an open_clip CLIP, written out name by name."""
    ours, theirs = model.state_dict(), {}
    for ln, name in (("ln_final", "text_model.final_layer_norm"),
                     ("visual.ln_pre", "vision_model.pre_layrnorm"),
                     ("visual.ln_post", "vision_model.post_layernorm")):  # fmt: skip
        for kind in ("weight", "bias"):
            theirs[f"{name}.{kind}"] = ours[f"{ln}.{kind}"]
    theirs["logit_scale"] = ours["logit_scale"]
    theirs["text_projection.weight"] = ours["text_projection"].T.contiguous()
    theirs["visual_projection.weight"] = ours["visual.proj"].T.contiguous()
    text, vision = "text_model.embeddings", "vision_model.embeddings"
    theirs[f"{text}.token_embedding.weight"] = ours["token_embedding.weight"]
    theirs[f"{text}.position_embedding.weight"] = ours["positional_embedding"]
    theirs[f"{vision}.class_embedding"] = ours["visual.class_embedding"]
    theirs[f"{vision}.patch_embedding.weight"] = ours["visual.conv1.weight"]
    theirs[f"{vision}.position_embedding.weight"] = ours["visual.positional_embedding"]
    theirs[f"{text}.position_ids"] = torch.arange(77)[None]  # as old versions wrote
    for tower, prefix in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        for number in (0, 1):
            block, layer = f"{prefix}.resblocks.{number}", f"{tower}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                whole = ours[f"{block}.attn.in_proj_{kind}"]
                for part, chunk in zip("qkv", whole.chunk(3), strict=True):
                    theirs[f"{layer}.self_attn.{part}_proj.{kind}"] = chunk.clone()
                for a, b in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                             ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"),
                             ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                    theirs[f"{layer}.{b}.{kind}"] = ours[f"{block}.{a}.{kind}"]
    return theirs


def write(folder, loaded):
    """A folder as a bundle's files have it, with weights by hand."""
    folder.mkdir()
    configs.write_config(folder, loaded.config["model_cfg"], 14.0)
    configs.write_preprocessor(folder, loaded.config["preprocess_cfg"])
    configs.write_tokenizer(folder, loaded.tokenizer, context_length=77, dynamic=False)
    save_file(state_by_hand(loaded.model), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["gelu", "quick gelu"])
def original(request):
    return tiny.build(quick_gelu=request.param, text={"mlp_ratio": 3.0})


@pytest.fixture
def folder(original, tmp_path):
    return write(tmp_path / "hf", original)


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


def test_what_is_written_in_this_form_loads_back_equal(original, folder, tmp_path):
    ours = models.load(folder)
    images, tokens = tiny.batch(original)
    with torch.no_grad():
        expected = tiny.features(original.model, images, tokens)
        found = tiny.features(ours.model, images, tokens)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert ours.weights_hash == original.weights_hash
    assert torch.equal(ours.preprocess(PICTURE), original.preprocess(PICTURE))
    texts = ["a Photo of a cat's ear", "🐱", ""]
    assert torch.equal(ours.tokenizer(texts), original.tokenizer(texts))
    # and in open_clip's own form, as a merged model is saved
    (tmp_path / "again").mkdir()
    models.save(tmp_path / "again", ours, ours.model.state_dict())
    again = models.load(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(tiny.features(again.model, images, tokens), found)
    for file in ("config.json", "preprocessor_config.json"):
        written = json.loads((folder / file).read_text())
        configs.write_config(tmp_path, again.config["model_cfg"], 14.0)
        configs.write_preprocessor(tmp_path, again.config["preprocess_cfg"])
        assert json.loads((tmp_path / file).read_text()) == written


def test_features_equal_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2}
    for act, eps in (("quick_gelu", 1e-5), ("gelu", 1e-3)):
        more = {**tower, "hidden_act": act, "layer_norm_eps": eps}
        config = transformers.CLIPConfig(
            text_config={"hidden_size": 16, "intermediate_size": 48, **more},
            vision_config={
                "hidden_size": 32, "intermediate_size": 96, "image_size": 32, "patch_size": 16,
                **more,
            },
            projection_dim=16,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            theirs = transformers.CLIPModel(config).eval()
            for parameter in theirs.parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        place = tmp_path / act
        theirs.save_pretrained(place, max_shard_size="1MB")
        assert (place / "model.safetensors.index.json").is_file()
        size = {"height": 32, "width": 32}
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        processor.save_pretrained(place)
        configs.write_tokenizer(place, tiny.build().tokenizer, context_length=77, dynamic=False)
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(place)
        tokenizer.save_pretrained(place)  # in transformers' own way of writing it
        ours = models.load(place)
        texts = ["a cat", "two Dogs on a very red sofa", ""]
        pixels = torch.stack([ours.preprocess(PICTURE)] * 3)
        of_theirs = processor(PICTURE, return_tensors="pt")["pixel_values"][0]
        # Hugging Face may resize by torch instead of Pillow: at most one of 255 steps apart.
        assert (of_theirs - pixels[0]).abs().max() < 1.01 / 255 / 0.26
        encoded = tokenizer(texts, padding="max_length", return_tensors="pt")
        with torch.no_grad():
            found = theirs(pixel_values=pixels, **encoded)
            images = ours.model.encode_image(pixels, normalize=True)
            of_texts = ours.model.encode_text(ours.tokenizer(texts), normalize=True)
        torch.testing.assert_close(images, found.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(of_texts, found.text_embeds, atol=1e-5, rtol=0)
        assert float(ours.model.logit_scale.detach()) == float(theirs.logit_scale.detach())


def test_weights_in_several_files(original, folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: state[n] for n in names if where[n] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert models.load(folder).weights_hash == original.weights_hash
    index.write_text(json.dumps({"weight_map": {names[0]: "../model.safetensors"}}))
    with pytest.raises(BrokenInput, match="outside its folder"):
        models.load(folder)


def test_a_vocabulary_in_two_files(original, folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BrokenInput, match="vocab.json"):
        models.load(folder)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]), encoding="utf-8")
    assert models.load(folder).weights_hash == original.weights_hash
    (folder / "merges.txt").write_text("\n".join(lines[1:]), encoding="utf-8")
    with pytest.raises(UsageError, match="not CLIP's own vocabulary"):
        models.load(folder)


def test_weights_that_torch_wrote(original, folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert models.load(folder).weights_hash == original.weights_hash


@pytest.mark.parametrize("form", ["tokenizer.json", "added_tokens.json", "tokenizer_config.json"])
def test_tokens_added_to_the_vocabulary_are_named(folder, form):
    if form == "added_tokens.json":
        (folder / form).write_text('{"<mydog>": 49408}')
    else:
        content = json.loads((folder / form).read_text())
        token = {"id": 49408, "content": "<mydog>", "special": False}
        if form == "tokenizer.json":
            content["added_tokens"].append(token)
        else:
            content["added_tokens_decoder"] = {"49408": token}
        (folder / form).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"tokens were added .*<mydog>"):
        models.load(folder)


def test_another_vocabulary(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["!"], vocab["#"] = vocab["#"], vocab["!"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="not CLIP's own vocabulary"):
        models.load(folder)


def test_what_open_clip_cannot_be(folder):
    for values, message in (
        ({"model_type": "siglip"}, "of type 'siglip'; only 'clip'"),
        ({"vision_config": {"hidden_act": "gelu_new"}}, "a hidden_act for each tower"),
        ({"text_config": {"eos_token_id": 5}}, "eos_token_id 5"),
        ({"vision_config_dict": {"num_channels": 1}}, "num_channels 1"),
    ):
        shutil.copy(folder / "config.json", folder / "kept")
        change(folder / "config.json", **values)
        with pytest.raises(UsageError, match=message):
            models.load(folder)
        shutil.move(folder / "kept", folder / "config.json")


def test_preprocessing(folder):
    path = folder / "preprocessor_config.json"
    shutil.copy(path, folder / "kept")
    for values, message in (
        ({"resample": 0}, "resample 0"),
        ({"crop_size": {"height": 30, "width": 30}}, r"a crop of \[30, 30\]"),
        ({"size": {"shortest_edge": 64}}, "resizing to .* for a model of 32"),
        ({"do_normalize": False}, "no normalization"),
        ({"rescale_factor": 1 / 127.5}, "values other than from 0 to 1"),
    ):
        change(path, **values)
        with pytest.raises(UsageError, match=message):
            models.load(folder)
        shutil.copy(folder / "kept", path)
    # the old way to write a size, and stretching instead of a crop
    change(path, size=32, crop_size=32, resample=2)
    assert models.load(folder).config["preprocess_cfg"]["interpolation"] == "bilinear"
    change(path, size={"height": 32, "width": 32}, do_center_crop=False)
    assert models.load(folder).config["preprocess_cfg"]["resize_mode"] == "squash"
    (folder / "processor_config.json").write_text(
        json.dumps({"image_processor": json.loads(path.read_text())})
    )
    path.unlink()
    assert models.load(folder).config["preprocess_cfg"]["resize_mode"] == "squash"
    (folder / "processor_config.json").unlink()
    with pytest.raises(BrokenInput, match="has no preprocessor_config.json"):
        models.load(folder)


def test_damaged_and_incomplete_folders(folder):
    state = load_file(folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-8])
    with pytest.raises(BrokenInput, match="damaged or truncated"):
        models.load(folder)
    del state["text_model.final_layer_norm.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(BrokenInput, match=r"1 tensor missing \(ln_final.bias\)"):
        models.load(folder)
    save_file(state | {"lora.weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(BrokenInput, match=r"1 tensor unknown to the model \(lora.weight\)"):
        models.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BrokenInput, match="not a model folder.*There are .*config.json"):
        models.load(folder)
    (folder / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(BrokenInput, match="pytorch_model.bin is not a weights file"):
        models.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(BrokenInput, match=r"config.json is damaged"):
        models.load(folder)


def test_the_hidden_width_is_exact():
    """open_clip keeps a ratio and cuts the product; 6144 of 1408 is such a case."""
    for width in (16, 48, 768, 1280, 1408, 1664):
        for hidden in range(width, 5 * width, 7):
            assert int(width * huggingface._ratio(hidden, width)) == hidden
