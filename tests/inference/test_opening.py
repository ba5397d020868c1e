"""One form for runs, bundles, folders and names; a bundle's own files say what its model said."""

import json

import numpy as np
import open_clip
import pytest
import torch
from fake_tensorrt import Fake, load_fake, with_engines
from PIL import Image
from tiny_bundle import NAMES, PROMPTS, make

from radapter import bundle, models
from radapter.errors import BrokenInput, MissingDependency, UsageError
from radapter.export.configs import write_preprocessor, write_tokenizer
from radapter.export.golden import DIFFERENT, EQUAL
from radapter.inference import open_model
from radapter.inference.opening import classes_and_prompts
from radapter.models import canonical_preprocessing
from radapter.runtimes.opened import (
    BundleTokenizer,
    from_loaded,
    open_bundle,
    read_preprocessing,
    text_cleaning,
)

TEXTS = ["a cat", "", "Two red DOGS, 1234, and it's late", "¿qué?", "word " * 100]


def picture(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_bundle_alone_is_the_model(exported, tiny, monkeypatch):
    for name in ("load", "shorten", "encode_text"):  # nothing of open_clip's models is touched
        monkeypatch.setattr(models, name, None)
    opened = open_bundle(exported)
    monkeypatch.undo()
    loaded = from_loaded(tiny)
    assert opened.weights_hash == loaded.weights_hash
    assert opened.preprocessing == loaded.preprocessing
    assert opened.classes["names"] == NAMES
    for one in (picture(50, 71), picture(20, 20)):
        torch.testing.assert_close(opened.preprocess(one), loaded.preprocess(one), atol=0, rtol=0)
    assert torch.equal(opened.tokenizer(TEXTS), loaded.tokenizer(TEXTS))
    assert torch.equal(opened.tokenizer(TEXTS[:2]), loaded.tokenizer(TEXTS[:2]))
    ours = opened.runtime.encode_text(opened.tokenizer(TEXTS))
    theirs = loaded.runtime.encode_text(loaded.tokenizer(TEXTS))
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
    rows = [theirs.new_tensor(tiny.model.encode_text(tiny.tokenizer(p)).tolist()) for p in PROMPTS]
    means = torch.stack([(r / r.norm(dim=1, keepdim=True)).mean(0) for r in rows])
    expected = means / means.norm(dim=1, keepdim=True)
    torch.testing.assert_close(opened.classes["features"], expected, atol=2e-6, rtol=0)


SPECIAL = ("<|endoftext|>", "<start_of_text>")
REPAIRED = [text for text in (*EQUAL, *DIFFERENT) if text not in SPECIAL]


def test_a_bundle_repairs_texts_as_open_clip_does(exported, tiny, bundle_copy):
    """Curly quotes, ligatures, entities: no tokenizer.json does. Bundles made before say no way."""
    manifest = bundle.read_manifest(exported)
    assert manifest["text_cleaning"] == "lower"
    without = {key: value for key, value in manifest.items() if key != "text_cleaning"}
    (bundle_copy / bundle.MANIFEST).write_text(json.dumps(without))
    for opened in (open_bundle(exported), open_bundle(bundle_copy)):
        for text in REPAIRED:
            ours, theirs = opened.tokenizer([text])[0], from_loaded(tiny).tokenizer([text])[0]
            assert torch.equal(ours, theirs), text
    plain = BundleTokenizer(exported, manifest)
    assert plain(["it’s"]).shape != from_loaded(tiny).tokenizer(["it’s"]).shape


@pytest.mark.parametrize(("clean", "text"), [("whitespace", "A  CAT"), ("canonicalize", "a_Cat!?")])
def test_other_kinds_of_cleaning(tmp_path, clean, text):
    saved = {"normalizer": None, "model": {"type": "WordPiece"}}
    config = {"open_clip": {"text_cfg": {"tokenizer_kwargs": {"clean": clean}}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = {"whitespace": "A CAT", "canonicalize": "a cat"}[clean]
    assert text_cleaning(tmp_path, {})(text) == expected
    assert text_cleaning(tmp_path, {"text_cleaning": "lower"})("A  CAT") == "a cat"
    with pytest.raises(BrokenInput, match="how texts are cleaned"):
        text_cleaning(tmp_path, {"text_cleaning": "thoroughly"})


def test_a_bundle_carries_the_prompts_of_its_run(bundle_copy):
    assert open_bundle(bundle_copy).templates == ["a photo of a {}."]  # made without any
    manifest = bundle.read_manifest(bundle_copy)
    for templates in (["a drawn {}.", "{}!"], "openai"):
        (bundle_copy / bundle.MANIFEST).write_text(json.dumps(manifest | {"templates": templates}))
        assert open_bundle(bundle_copy).templates == templates
        assert open_bundle(bundle_copy, templates=["{}"]).templates == ["{}"]
    (bundle_copy / bundle.MANIFEST).write_text(json.dumps(manifest | {"templates": [1]}))
    with pytest.raises(BrokenInput, match="its templates are not texts"):
        open_bundle(bundle_copy)


def test_auto_takes_the_processor_where_cuda_is_listed_but_does_not_load(exported, monkeypatch):
    import onnxruntime

    real = onnxruntime.InferenceSession
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers, **more: real(path, options, providers=listed[1:]),
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="CUDA cannot be used, so the CPU is: .*runs vision_mod"):
        opened = open_bundle(exported, "auto")
    assert (opened.runtime.name, opened.runtime.device) == ("onnx", "cpu")
    with pytest.raises(MissingDependency):
        open_bundle(exported, "cuda")


def test_auto_takes_the_processor_where_cuda_has_no_memory(exported, monkeypatch):
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    real, said = onnxruntime.InferenceSession, "BFCArena: Failed to allocate memory of 2 GB"
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def session(path, options, providers, **more):
        if len(providers) > 1 or providers[0] != listed[1]:
            raise RuntimeException(said)
        return real(path, options, providers=providers, **more)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="CUDA cannot be used, so the CPU is: .*allocate memory"):
        opened = open_bundle(exported, "auto")
    assert (opened.runtime.name, opened.runtime.device) == ("onnx", "cpu")
    with pytest.raises(RuntimeException):  # it was asked for
        open_bundle(exported, "cuda")


@pytest.mark.parametrize("size", [32, (32, 48)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_preprocessing_survives_the_bundle(tmp_path, size, mode, interpolation):
    cfg = open_clip.transform.PreprocessCfg(
        size=size, resize_mode=mode, interpolation=interpolation, mean=(0.5, 0.4, 0.3), fill_color=0
    )
    write_preprocessor(tmp_path, cfg.__dict__)
    found = read_preprocessing(tmp_path)
    assert found == canonical_preprocessing(cfg.__dict__) == json.loads(json.dumps(found))
    again = open_clip.transform.PreprocessCfg(**found | {"size": tuple(found["size"])})
    transforms = [open_clip.transform.image_transform_v2(c, is_train=False) for c in (cfg, again)]
    for one in (picture(71, 50), picture(33, 200), picture(32, 32)):
        ours, theirs = (transform(one) for transform in transforms)
        assert torch.equal(ours, theirs)


def test_preprocessing_that_cannot_be_read(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224}')
    with pytest.raises(BrokenInput, match=r"preprocessor_config\.json cannot be read: KeyError"):
        read_preprocessing(tmp_path)


def test_texts_are_padded_where_the_towers_length_is_fixed(tmp_path):
    loaded = make()
    write_tokenizer(tmp_path, loaded.tokenizer, context_length=77, dynamic=False)
    tokenize = BundleTokenizer(tmp_path, {"context_length": 77, "text_length": "fixed"})
    assert torch.equal(tokenize(TEXTS), loaded.tokenizer(TEXTS))


def test_a_tokenizer_that_does_not_say_how_it_pads(tmp_path):
    """As Hugging Face saves one: the padding is named in tokenizer_config.json alone."""
    loaded = make()
    write_tokenizer(tmp_path, loaded.tokenizer, context_length=77, dynamic=True)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    saved |= {"padding": None, "truncation": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    config = {"pad_token": {"content": "dog</w>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenize = BundleTokenizer(tmp_path, {"context_length": 7, "text_length": "dynamic"})
    ids = tokenize(["a", "a b c d e f g h"])
    dog = loaded.tokenizer.encoder["dog</w>"]
    assert ids[0, 3:].tolist() == [dog] * 4
    assert torch.equal(ids[1], loaded.tokenizer(["a b c d e f g h"], context_length=7)[0])


def test_what_is_opened_as_what(exported, tiny_folder, tmp_path):
    assert open_model(exported).runtime.name == "onnx"
    assert open_model(tiny_folder).runtime.name == "pytorch"
    assert open_model(f"local-dir:{tiny_folder}").classes is None
    with pytest.raises(UsageError, match="is a bundle, which torch cannot run"):
        open_model(exported, "torch")
    with pytest.raises(UsageError, match="is not a bundle, so it runs with torch only"):
        open_model(tiny_folder, "onnx")
    (tmp_path / "recipe.yaml").write_text("name: x")
    with pytest.raises(UsageError, match=f"is a run: give it as --run {tmp_path}"):
        open_model(tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'ViT-B-16'"):
        open_model("ViT-B-61:openai")


def test_tensorrt_is_for_bundles_and_cuda(exported, tiny_folder):
    with pytest.raises(UsageError, match="leave out --runtime tensorrt"):
        open_model(tiny_folder, "tensorrt", device="auto")
    with pytest.raises(UsageError, match="the device auto or cuda"):
        open_model(exported, "tensorrt", device="cpu")
    with pytest.raises(BrokenInput, match="has no engines.*radapter export --trt"):
        open_model(exported, "tensorrt", device="auto")


def test_a_bundles_engines_are_used_like_any_model(exported, tiny, tmp_path, monkeypatch):
    """On a FAKE TensorRT; see tests/fake_tensorrt.py."""
    load_fake(monkeypatch, Fake("rtx-1.7"))
    opened = open_model(with_engines(exported, tmp_path / "b", "rtx"), "tensorrt", device="auto")
    assert (opened.runtime.name, opened.runtime.device) == ("tensorrt", "cuda")
    features = opened.runtime.encode_text(opened.tokenizer(["a cat", "two dogs"]))
    expected = open_model(exported).runtime.encode_text(opened.tokenizer(["a cat", "two dogs"]))
    torch.testing.assert_close(features, expected, atol=2e-6, rtol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_auto_is_the_processor_where_there_is_no_other(exported, tiny_folder):
    for source in (exported, tiny_folder):
        assert open_model(source, device="auto").runtime.device == "cpu"
        with pytest.raises(MissingDependency):
            open_model(source, device="cuda")


def test_a_damaged_bundle(bundle_copy):
    (bundle_copy / "tokenizer.json").write_text("{}")
    with pytest.raises(BrokenInput, match=r"tokenizer\.json is damaged"):
        open_model(bundle_copy)
    manifest = json.loads((bundle_copy / bundle.MANIFEST).read_text())
    manifest["files"]["tokenizer.json"] = bundle.file_hash(bundle_copy / "tokenizer.json")
    (bundle_copy / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BrokenInput, match=r"tokenizer\.json cannot be read"):
        open_model(bundle_copy)


def test_classes_and_prompts_of_a_bundle_and_of_anything_else(bundle_copy, tmp_path):
    manifest = bundle.read_manifest(bundle_copy)
    (bundle_copy / bundle.MANIFEST).write_text(json.dumps(manifest | {"templates": ["my {}."]}))
    names, prompts = classes_and_prompts(bundle_copy)
    assert prompts == ["my {}."]
    classes = open_bundle(bundle_copy).classes
    assert names == (classes and classes["names"])
    assert classes_and_prompts(tmp_path) == (None, ["a photo of a {}."])
