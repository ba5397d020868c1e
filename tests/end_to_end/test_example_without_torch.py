"""The example runs a bundle where torch and radapter cannot be imported."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import open_clip
import pytest
import torch
import trees
from onnx import numpy_helper
from PIL import Image
from tiny_bundle import NAMES
from video_files import turn, two_colours, video

from radapter import bundle
from radapter.data.pixels import USUAL
from radapter.data.videos import animated, decoded, shares
from radapter.models import encode_text
from radapter.models.frames import mean_of_frames

EXAMPLE = Path(__file__).parents[2] / "examples" / "classify.py"
CHECK = EXAMPLE.with_name("check_bundle.py")
BLOCKER = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "open_clip", "radapter", "transformers"):
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture
def run(tmp_path):
    """Run Python with the example's arguments, torch and radapter blocked."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(BLOCKER)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )

    return run


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("name", ["torch", "radapter"])
def test_the_block_blocks(run, name):
    done = run("-c", f"import {name}")
    assert done.returncode == 1
    assert f"{name} is blocked" in done.stderr


def test_it_classifies(run, picture, exported, tiny):
    done = run(EXAMPLE, exported, picture)
    assert done.returncode == 0, done.stderr
    features = tiny.model.encode_image(tiny.preprocess(Image.open(picture))[None])
    assert _shares(done.stdout) == _expected(features, bundle.read_classes(exported)[1], NAMES)


def test_it_classifies_free_texts(run, picture, exported, tiny):
    texts = ["a red ball", "Something else, entirely", "¿qué?"]
    done = run(EXAMPLE, exported, picture, *texts)
    assert done.returncode == 0, done.stderr
    features = tiny.model.encode_image(tiny.preprocess(Image.open(picture))[None])
    rows = tiny.model.encode_text(tiny.tokenizer(texts)).detach().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert _shares(done.stdout) == _expected(features, rows, texts)


def test_the_golden_files_come_out(run, exported):
    done = run(CHECK, exported)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "token ids",
        "pixel_values",
        "image_embeds",
        "text_embeds",
    ]


def test_a_port_that_is_wrong_is_found_out(run, bundle_copy):
    """Each part of it: another filter, a tokenizer that does not lower, weights that changed."""
    config = json.loads((bundle_copy / "preprocessor_config.json").read_text())
    changed = json.dumps({**config, "resample": 2})
    (bundle_copy / "preprocessor_config.json").write_text(changed)
    tokenizer = (bundle_copy / "tokenizer.json").read_text()
    lowers = '{"type":"Lowercase"}'
    assert lowers in tokenizer
    (bundle_copy / "tokenizer.json").write_text(tokenizer.replace(lowers, '{"type":"NFC"}'))
    path = bundle_copy / bundle.TEXT
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    damaged = 1.01 * numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(damaged.astype(np.float32), largest.name))
    onnx.save(model, path)
    done = run(CHECK, bundle_copy)
    assert done.returncode == 1
    found = {line.split(":")[0]: line.endswith("OK") for line in done.stdout.splitlines()}
    assert found == {
        "token ids": False,
        "pixel_values": False,
        "image_embeds": True,
        "text_embeds": False,
    }


@pytest.mark.parametrize("example", [EXAMPLE, CHECK])
def test_it_is_short_and_imports_neither(example):
    source = example.read_text()
    assert len(source.splitlines()) < 110
    assert "import torch" not in source
    assert "import radapter" not in source


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (32, 32), (20, 20), (71, 50), (50, 71), (33, 200), (101, 34), (32, 35), (35, 32)],
)
def test_preprocessing_is_open_clips(tmp_path, mode, interpolation, width, height):
    from radapter.export.configs import write_preprocessor

    example = _load()
    cfg = open_clip.transform.PreprocessCfg(size=32, resize_mode=mode, interpolation=interpolation)
    write_preprocessor(tmp_path, cfg.__dict__)
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = open_clip.transform.image_transform_v2(cfg, is_train=False)(image).numpy()
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    np.testing.assert_allclose(example(image, config)[0], expected, atol=1e-6)


def _load():
    """The example's `preprocess`."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.preprocess


def _expected(features, rows, names):
    """Name -> share in percent, from the definition of a softmax."""
    image = features.detach().numpy()[0].astype(np.float64)
    logits = rows.astype(np.float64) @ (image / np.linalg.norm(image)) / 0.07
    shares = np.exp(logits) / np.exp(logits).sum()
    return {name: pytest.approx(100 * s, abs=0.06) for name, s in zip(names, shares, strict=True)}


def _shares(output):
    rows = (line.split("%", 1) for line in output.splitlines())
    return {name.strip(): float(share) for share, name in rows}


def test_it_searches_videos(run, exported, tiny, tmp_path):
    """The cosines are those of the mean of frames in PyTorch."""
    frames = {}
    for name, count in (("a.gif", 5), ("b.webp", 20)):
        shown = [trees.draw(7 * k + count) for k in range(count)]
        shown[0].save(tmp_path / name, save_all=True, append_images=shown[1:], lossless=True)
        frames[name] = animated(tmp_path / name, shares(12), USUAL)
    video(tmp_path / "c.mp4", 30)
    frames["c.mp4"] = decoded(tmp_path / "c.mp4", shares(12), USUAL)
    turn(two_colours(tmp_path / "d.mp4"))
    frames["d.mp4"] = decoded(tmp_path / "d.mp4", shares(12), USUAL)
    assert frames["d.mp4"][0].size == (48, 64)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "broken.gif").write_bytes(b"no picture at all")
    done = run(EXAMPLE.with_name("search_videos.py"), exported, tmp_path, "a cat")
    assert done.returncode == 0, done.stderr
    said = {Path(line.split("  ")[1]).name: float(line.split()[0]) for line in
            done.stdout.splitlines()}  # fmt: skip
    assert said.keys() == frames.keys()
    for name in ("broken.gif", "broken.mp4"):
        assert f"skipped: {tmp_path / name}: " in done.stderr
    text = encode_text(tiny.model, tiny.tokenizer(["a cat"]))[0]
    for name, pictures in frames.items():
        pixels = torch.stack([tiny.preprocess(picture) for picture in pictures])[None]
        feature = mean_of_frames(tiny.model.encode_image, pixels)[0]
        cosine = float(feature @ text / text.norm())
        assert said[name] == pytest.approx(cosine, abs=2e-3), name


def test_it_searches_for_a_picture_with_something_changed(run, exported, tiny, tmp_path):
    """The cosines are those of the sum of both features in PyTorch."""
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        trees.draw(9 * i).save(tmp_path / "pictures" / f"{i}.png")
    reference = tmp_path / "pictures" / "2.png"
    script = EXAMPLE.with_name("search_composed.py")
    done = run(script, exported, reference.parent, reference, "a cat", "--weight", "0.3")
    assert done.returncode == 0, done.stderr
    said = {Path(line.split("  ")[1]).name: float(line.split()[0]) for line in
            done.stdout.splitlines()}  # fmt: skip
    pixels = torch.stack([tiny.preprocess(trees.draw(9 * i)) for i in range(4)])
    features = torch.nn.functional.normalize(tiny.model.encode_image(pixels), dim=-1)
    text = encode_text(tiny.model, tiny.tokenizer(["a cat"]))[0]
    query = 0.7 * features[2] + 0.3 * text / text.norm()
    for i, cosine in enumerate((features @ query / query.norm()).tolist()):
        assert said[f"{i}.png"] == pytest.approx(cosine, abs=2e-3)
