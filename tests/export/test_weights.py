"""The weights in a bundle, loaded by open_clip and by transformers themselves."""

import json

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import build
from tiny_bundle import FACTS

from radapter import bundle
from radapter.errors import GateFailed, UsageError
from radapter.export import Contents, export_bundle, weights
from radapter.export.bundling import plan
from radapter.models import huggingface

pytestmark = pytest.mark.slow  # they export


BOTH = Contents(checkpoints=["open_clip", "transformers"])


@pytest.fixture(scope="module")
def quick():
    return build(quick_gelu=True)


@pytest.fixture(scope="module")
def carried(quick, tmp_path_factory):
    """A bundle with both weights."""
    folder = tmp_path_factory.mktemp("carried") / "bundle"
    export_bundle(quick, folder, BOTH, facts=FACTS)
    return folder


@pytest.fixture(scope="module")
def golden(carried, quick):
    """The golden files, after a look at whether they are the model's."""
    content = json.loads((carried / "golden" / "golden.json").read_text(encoding="utf-8"))
    arrays = {
        name: np.load(carried / content[name], allow_pickle=False)
        for name in ("pixel_values", "image_embeds", "text_embeds")
    }
    with torch.no_grad():
        features = quick.model.encode_image(torch.from_numpy(arrays["pixel_values"]))
    np.testing.assert_allclose(arrays["image_embeds"], F.normalize(features, dim=1), atol=1e-6)
    return {**content, **arrays, "pictures": [carried / name for name in content["pictures"]]}


def unit(features):
    return F.normalize(features.detach(), dim=1).numpy()


def test_open_clip_loads_it(carried, golden):
    name = f"local-dir:{carried / 'open_clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    pixels = torch.stack([preprocess(Image.open(path)) for path in golden["pictures"]])
    np.testing.assert_allclose(pixels, golden["pixel_values"], atol=1e-6)
    tokens = tokenizer([row["text"] for row in golden["texts"]["equal"]])
    for row, ids in zip(golden["texts"]["equal"], tokens.tolist(), strict=True):
        assert ids[: len(row["ids"])] == row["ids"]
    with torch.no_grad():
        images, texts = model.eval().encode_image(pixels), model.encode_text(tokens)
    np.testing.assert_allclose(unit(images), golden["image_embeds"], atol=1e-4)
    np.testing.assert_allclose(unit(texts), golden["text_embeds"], atol=1e-4)


def test_transformers_loads_it(carried, golden, quick):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model = transformers.CLIPModel.from_pretrained(carried).eval()
    processor = transformers.CLIPProcessor.from_pretrained(carried)
    for row in (*golden["texts"]["equal"], *golden["texts"]["different"]):
        assert processor.tokenizer([row["text"]], truncation=True)["input_ids"] == [row["ids"]]
    texts = [row["text"] for row in golden["texts"]["equal"]]
    inputs = processor(text=texts, padding=True, truncation=True, return_tensors="pt")
    pixels = torch.from_numpy(golden["pixel_values"])
    with torch.no_grad():
        output = model(pixel_values=pixels, **inputs)
    np.testing.assert_allclose(unit(output.image_embeds), golden["image_embeds"], atol=1e-4)
    np.testing.assert_allclose(unit(output.text_embeds), golden["text_embeds"], atol=1e-4)
    cosines = golden["image_embeds"] @ golden["text_embeds"].T
    scale = float(quick.model.logit_scale.detach().exp())
    np.testing.assert_allclose(output.logits_per_image.numpy(), scale * cosines, atol=1e-2)
    # From the pictures: with Pillow's filters the same; torchvision's round on their own, to a
    # step of 1/255 before the division by the standard deviation.
    pictures = [Image.open(path) for path in golden["pictures"]]
    step = 1 / 255 / min(quick.config["preprocess_cfg"]["std"])
    given = processor.image_processor(images=pictures, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(given, golden["pixel_values"], atol=1.01 * step)
    pil = getattr(transformers, "CLIPImageProcessorPil", None)
    if pil is not None:
        given = pil.from_pretrained(carried)(images=pictures, return_tensors="np")
        np.testing.assert_allclose(given["pixel_values"], golden["pixel_values"], atol=1e-5)


def test_the_plan_names_them(carried, quick):
    planned = plan(quick, contents=BOTH)
    for name in ("open_clip/open_clip_model.safetensors", "model.safetensors"):
        size = (carried / name).stat().st_size
        assert planned[name] == pytest.approx(size, rel=0.05)
        assert name in bundle.verify(carried)["files"]
    assert bundle.read_manifest(carried)["checkpoints"] == ["open_clip", "transformers"]
    card = (carried / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "local-dir:" in card


@pytest.mark.parametrize("custom", [False, True])
def test_the_names_there_and_back(custom):
    state = build(custom=custom).model.state_dict()
    theirs = huggingface.to_huggingface(state)
    assert not set(theirs) & set(state) - {"logit_scale"}
    back = huggingface.convert_weights(theirs)
    assert set(back) == {name.removeprefix("text.") for name in state}
    for name, tensor in state.items():
        assert torch.equal(back[name.removeprefix("text.")], tensor)
    assert all(tensor.is_contiguous() for tensor in theirs.values())


@pytest.mark.parametrize(
    "options",
    [
        {"vision": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}},
        {"custom": True, "text": {"no_causal_mask": True}},
        {"init_logit_bias": -10.0},
    ],
    ids=["resnet", "bidirectional", "bias"],
)
def test_what_is_no_clip_of_theirs_is_refused_before_anything_is_written(tmp_path, options):
    loaded, theirs = build(**options), Contents(checkpoints=["transformers"])
    for attempt in (
        lambda: export_bundle(loaded, tmp_path / "b", theirs, facts={}),
        lambda: plan(loaded, contents=theirs),
    ):
        with pytest.raises(UsageError, match="transformers' CLIPModel has no"):
            attempt()
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"'keras'\. Known: open_clip, transformers"):
        plan(loaded, contents=Contents(checkpoints=["keras"]))


def test_a_checkpoint_with_other_features_is_refused(carried, quick, tmp_path, monkeypatch):
    """Queries in the place of keys: all shapes fit, and only the features tell."""
    right = huggingface.to_huggingface

    def swapped(state):
        theirs = right(state)
        for name in [name for name in theirs if name.startswith("vision") and ".q_proj." in name]:
            theirs[name] = theirs[name.replace(".q_proj.", ".k_proj.")].clone()
        return theirs

    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((carried / name).read_bytes())
    cases = _cases(carried)
    weights.write(tmp_path, quick, ["transformers"], cases)
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface, "to_huggingface", swapped)
    with pytest.raises(GateFailed, match="transformers checkpoint of this model gives other"):
        weights.write(tmp_path, quick, ["transformers"], cases)


def _cases(folder):
    read = lambda name: torch.from_numpy(np.load(folder / "golden" / name))  # noqa: E731
    rows = json.loads((folder / "golden" / "golden.json").read_text())["texts"]["equal"]
    length = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([row["ids"] + [0] * (length - len(row["ids"])) for row in rows])
    return {
        bundle.VISION: {"golden": (read("pixel_values.npy"), read("image_embeds.npy"))},
        bundle.TEXT: {"golden": (ids, read("text_embeds.npy"))},
    }
