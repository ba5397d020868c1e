"""Weights that are not here: a download that fails, without a network of the test's own."""

import time
import urllib.error

import open_clip
import pytest
from huggingface_hub import constants

from radapter import models
from radapter.errors import BrokenInput
from radapter.models import downloads


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # OpenAI's weights want the quick activation: under the plain name they would load wrong.
        ("ViT-B-16:openai", ["timm/vit_base_patch16_clip_224.openai", "ViT-B-16-quickgelu:FILE"]),
        ("ViT-B-32:laion2b_s34b_b79k", ["laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32:FILE"]),
        ("ViT-H-14:dfn5b", ["apple/DFN5B-CLIP-ViT-H-14", "open_clip_config.json", "the folder"]),
        ("ViT-B-16-SigLIP:webli", ["timm/ViT-B-16-SigLIP", "open_clip_config.json", "the folder"]),
    ],
)
def test_the_message_says_what_is_missing_and_how_to_bring_it(name, expected):
    start = time.perf_counter()
    with pytest.raises(BrokenInput) as caught:
        models.load(name)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    for part in (name, "open_clip_model.safetensors", "no route to host", *expected):
        assert part in message
    assert caught.value.exit_code == 4


def test_a_url(monkeypatch):
    known = {"url": "https://example.org/weights-0123.pt"}
    with pytest.raises(BrokenInput, match=r"https://example.org/weights-0123.pt.*RN50:FILE"):
        downloads.fetch("RN50:mine", "RN50", known)


def test_offline_by_setting_asks_nobody(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", None)
    with pytest.raises(BrokenInput, match="HF_HUB_OFFLINE is set"):
        models.load("ViT-B-16:openai")


def test_what_is_in_the_cache_needs_no_network(tmp_path):
    known = open_clip.get_pretrained_cfg("ViT-B-16", "openai")
    repository = known["hf_hub"].strip("/")
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    for folder in ("refs", "snapshots/0123"):
        (place / folder).mkdir(parents=True)
    (place / "refs" / "main").write_text("0123")
    with pytest.raises(BrokenInput):
        downloads.fetch("ViT-B-16:openai", "ViT-B-16", known)
    (place / "snapshots/0123" / "open_clip_model.safetensors").write_bytes(b"weights")
    downloads.fetch("ViT-B-16:openai", "ViT-B-16", known)


def test_every_file_of_another_activation_is_named_with_it():
    """No tag of open_clip is lost by the advice."""
    for architecture, tag in open_clip.list_pretrained():
        known = open_clip.get_pretrained_cfg(architecture, tag)
        advice = downloads._by_hand(architecture, known)
        if known.get("quick_gelu") and "FILE" in advice:
            name = advice.split(":FILE")[0].split()[-1]
            quick = open_clip.get_model_config(name).get("quick_gelu")
            assert quick or name.endswith("quickgelu"), (architecture, tag)
