"""What is not here: a download that fails, without a network of the test's own."""

import json
import re
import shutil
import time
import urllib.error

import open_clip
import pytest
import tiny
from huggingface_hub import constants
from safetensors.torch import save_file

from radapter import models
from radapter.errors import BrokenInput
from radapter.models import downloads

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))


def cache(tmp_path, repository, files):
    """Put files into the hub's cache as a copy from another machine would."""
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(COMMIT)
    for name, source in files.items():
        path = place / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source) if isinstance(source, bytes) else shutil.copy(source, path)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("ViT-B-16:openai", "timm/vit_base_patch16_clip_224.openai"),
        ("ViT-B-32:laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("ViT-H-14:dfn5b", "apple/DFN5B-CLIP-ViT-H-14"),
        ("ViT-B-16-SigLIP:webli", "timm/ViT-B-16-SigLIP"),
    ],
)
def test_the_message_says_what_is_missing_and_how_to_bring_it(name, repository, tmp_path):
    start = time.perf_counter()
    with pytest.raises(BrokenInput) as caught:
        models.load(name)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    architecture, _, tag = name.partition(":")
    for part in (
        name,
        "open_clip_model.safetensors",
        "no route to host",
        f"type: hf download {repository} --include 'open_clip_model.safetensors'",
        f"models--{repository.replace('/', '--')}",
        str(tmp_path / "hub"),
        "the tokenizer (tokenizer.json, tokenizer_config.json"
        if "SigLIP" in name
        else f"{architecture}:FILE,like={tag}",
    ):
        assert part in message
    assert caught.value.exit_code == 4


def test_every_file_is_named_with_the_tag_it_is_used_like():
    """No tag of open_clip is lost by the advice."""
    for architecture, tag in open_clip.list_pretrained():
        if architecture not in open_clip.list_models():
            continue
        stated = models.conventions.read(f"{architecture}:FILE,like={tag}")
        expected = models.conventions.of_tag(architecture, tag)
        assert models.conventions.of_file(architecture, stated) == expected


def test_a_url(tmp_path):
    known = {"url": "https://example.org/weights-0123.pt"}
    with pytest.raises(BrokenInput) as caught:
        downloads.weights("RN50:mine", "RN50", "mine", known)
    place = tmp_path / ".cache" / "clip" / "weights-0123.pt"
    for part in (known["url"], str(place), "RN50:FILE,like=mine", "no route to host"):
        assert part in str(caught.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert downloads.weights("RN50:mine", "RN50", "mine", known) == place


def test_offline_by_setting_asks_nobody(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", None)
    with pytest.raises(BrokenInput, match="HF_HUB_OFFLINE is set"):
        models.load("ViT-B-16:openai")


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_what_is_in_the_cache_needs_no_network(tmp_path, file):
    known = open_clip.get_pretrained_cfg("ViT-B-16", "openai")
    repository = known["hf_hub"].strip("/")
    cache(tmp_path, repository, {file: b"weights"})
    path = downloads.weights("ViT-B-16:openai", "ViT-B-16", "openai", known)
    assert path.name == file
    assert path.read_bytes() == b"weights"
    assert constants.HF_HUB_OFFLINE is False


# ---------------------------------------------------------------- hf-hub:OWNER/NAME


def test_a_repository_as_open_clip_has_it(tmp_path):
    name = "hf-hub:someone/tiny-clip"
    with pytest.raises(BrokenInput, match="open_clip_config.json and .* of someone/tiny-clip"):
        models.load(name)
    folder = tiny.write(tmp_path / "model")
    config = {"open_clip_config.json": folder / "open_clip_config.json"}
    cache(tmp_path, "someone/tiny-clip", config)
    with pytest.raises(BrokenInput, match="open_clip_model.safetensors .*of someone/tiny-clip"):
        models.load(name)  # open_clip would go on with random weights
    weights = {"open_clip_model.safetensors": folder / "open_clip_model.safetensors"}
    cache(tmp_path, "someone/tiny-clip", weights)
    ours, same = models.load(name), models.load(folder)
    assert ours.weights_hash == same.weights_hash
    assert ours.used_with == same.used_with


# ---------------------------------------------------------------- tokenizers


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with the files of a small Hugging Face tokenizer."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = {word: i for i, word in enumerate(("</s>", "<pad>", "<unk>", "a", "cat"))}
    words = tiny_tokenizer(vocabulary)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def tiny_tokenizer(vocabulary):
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 0)])
    return made


@pytest.fixture
def siglip(tmp_path, monkeypatch):
    """An architecture whose tokenizer is on the hub, small."""
    text = {**tiny.TEXT, "vocab_size": 5, "context_length": 8, "no_causal_mask": True}
    text |= {"hf_tokenizer_name": "someone/words", "pool_type": "last"}
    config = {"embed_dim": 16, "custom_text": True, "vision_cfg": tiny.VISION, "text_cfg": text}
    (tmp_path / "architectures").mkdir()
    (tmp_path / "architectures" / "tiny-siglip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "architectures")
    return "tiny-siglip"


def do_as_it_says(message, hub, tmp_path):
    """What a message tells to type, done by hand; `hub`: repositories and their folders."""
    typed = re.findall(r"hf download (\S+)((?: --include '\S+')+)", message)
    assert {repository for repository, _ in typed} == set(hub)
    for repository, patterns in typed:
        found = [path for p in re.findall(r"'(\S+)'", patterns) for path in hub[repository].glob(p)]
        cache(tmp_path, repository, {path.name: path for path in found})


@pytest.mark.parametrize("weights", ["someone/words", "someone/weights"])
def test_all_that_a_tag_needs_is_told_at_once(siglip, tokenizer, tmp_path, monkeypatch, weights):
    published = {
        **open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli"),
        "hf_hub": f"{weights}/",
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, siglip, {"own": published})
    text = open_clip.get_model_config(siglip)["text_cfg"]
    hub = {"someone/words": shutil.copytree(tokenizer, tmp_path / "words")}
    hub[weights] = hub.get(weights, tmp_path)
    model = tiny.build(
        custom=True, text={key: text[key] for key in ("vocab_size", "context_length")}
    )
    save_file(model.model.state_dict(), hub[weights] / "open_clip_model.safetensors")
    with pytest.raises(BrokenInput) as caught:
        models.load(f"{siglip}:own")
    do_as_it_says(str(caught.value), hub, tmp_path)
    loaded = models.load(f"{siglip}:own")
    assert loaded.weights_hash == model.weights_hash
    assert loaded.used_with["mean"] == [0.5] * 3
    assert loaded.tokenizer(["a cat"])[0, :3].tolist() == [3, 4, 0]


def test_a_tokenizer_that_is_not_here_is_named_and_the_advice_holds(siglip, tokenizer, tmp_path):
    start = time.perf_counter()
    with pytest.raises(BrokenInput) as caught:
        models.load(f"{siglip}:random")
    assert time.perf_counter() - start < 5
    assert "tokenizer.json, tokenizer_config.json" in str(caught.value)
    do_as_it_says(str(caught.value), {"someone/words": tokenizer}, tmp_path)
    loaded = models.load(f"{siglip}:random", seed=3)
    assert loaded.context_length == 8
    assert loaded.tokenizer(["a cat"])[0].tolist() == [3, 4, 0, 1, 1, 1, 1, 1]
    assert loaded.weights_hash == models.load(f"{siglip}:random", seed=3).weights_hash
    # and a folder that has been saved needs no cache
    (tmp_path / "saved").mkdir()
    models.save(tmp_path / "saved", loaded, loaded.model.state_dict())
    shutil.rmtree(tmp_path / "hub")
    again = models.load(tmp_path / "saved")
    assert again.tokenizer(["a cat"]).tolist() == loaded.tokenizer(["a cat"]).tolist()


def test_a_folder_without_its_tokenizer(siglip, tokenizer, tmp_path):
    config = open_clip.get_model_config(siglip)
    folder = tmp_path / "model"
    folder.mkdir()
    whole = {"model_cfg": config, "preprocess_cfg": {"mean": tiny.MEAN, "std": tiny.STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    model = tiny.build(custom=True, text={"vocab_size": 5, "context_length": 8}).model
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    with pytest.raises(BrokenInput, match=r"no tokenizer: copy tokenizer.json.*someone/words"):
        models.load(folder)
    for path in tokenizer.iterdir():
        shutil.copy(path, folder)
    assert models.load(folder).tokenizer(["cat"])[0, 0] == 4
    content = json.loads((folder / "tokenizer.json").read_text())
    added = content["added_tokens"][0]
    content["added_tokens"].append({**added, "id": 5, "content": "<mydog>", "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BrokenInput, match="the tokens <mydog> were added to the tokenizer"):
        models.load(folder)
