"""Mean IoU and pixel accuracy against plain loops; a model that knows colours segments by them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from radapter import models
from radapter.evaluation import dense, parity, segmentation
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.segmentation import THRESHOLDS, counts_of
from radapter.evaluation.suite import Suite
from radapter.evaluation.suite_dataset import Dense
from radapter.evaluation.tasks import segmentation as task
from radapter.runtimes.opened import OpenModel, from_loaded

CLASSES = 3


@pytest.fixture(scope="module")
def maps():
    """(named, sure, mask) of pictures: random, with pixels that count nowhere or have no name."""
    generator = np.random.default_rng(0)
    shape = (7, 9, 11)
    return (generator.integers(-1, CLASSES, shape), generator.random(shape),
            generator.integers(-1, CLASSES + 1, shape))  # fmt: skip


def brute_force(named, mask, classes):
    """Named from 1, as in masks."""
    found = []
    for c in classes:
        if (mask == c).any():
            both = ((named == c) & (mask == c)).sum()
            found.append(both / ((named == c) | (mask == c)).sum())
    return np.mean(found)


def test_metrics_equal_plain_loops(maps):
    named, sure, mask = maps
    counts = [counts_of(*one, CLASSES) for one in zip(*maps, strict=True)]
    right, said, there = (np.stack([getattr(c, k) for c in counts])
                          for k in ("right", "named", "there"))  # fmt: skip
    inside = mask > 0
    wanted = brute_force(np.where(inside, named + 1, -9), mask, range(1, CLASSES + 1))
    shares = segmentation.iou_shares(right, said, there)
    assert shares.mean() == pytest.approx(wanted)
    accuracy = segmentation.accuracy_shares(right, there)
    assert accuracy.mean() == pytest.approx((named + 1 == mask)[inside].mean())
    for t in (0, 5, THRESHOLDS - 1):
        kept = np.where((sure >= t / THRESHOLDS) & (named >= 0), named + 1, 0)
        wanted = brute_force(np.where(mask >= 0, kept, -9), mask, range(CLASSES + 1))
        above = (
            np.stack([getattr(c, f"{k}_above")[t] for c in counts]) for k in ("right", "named")
        )
        assert segmentation.mean_iou(*above, np.stack([c.there_all for c in counts])) == (
            pytest.approx(wanted)
        )


def test_the_threshold_of_a_picture_is_chosen_on_others():
    """In even pictures what is surer than 0.5 is no background, in odd ones all above 0.1 is."""
    mask = np.array([[0, 1]])
    even = counts_of(np.zeros((1, 2), int), np.array([[0.45, 0.9]]), mask, 1)
    odd = counts_of(np.zeros((1, 2), int), np.array([[0.08, 0.3]]), mask, 1)
    _, thresholds = segmentation.with_background([even, odd, even, odd])
    assert thresholds == [0.1, 0.5]
    assert segmentation.with_background([even] * 4)[0].tolist() == [1.0] * 4


def test_the_spread_of_shares_is_that_of_the_metric(maps):
    """Its change when a picture counts a little more, divided by that little."""
    counts = [counts_of(*one, CLASSES) for one in zip(*maps, strict=True)]
    parts = [np.stack([getattr(c, k) for c in counts]).astype(float)
             for k in ("right", "named", "there")]  # fmt: skip
    shares = segmentation.iou_shares(*parts)
    more = 1e-6
    for i in range(len(counts)):
        weights = np.ones((len(counts), 1))
        weights[i] += more
        changed = segmentation.mean_iou(*(part * weights for part in parts))
        slope = (changed - shares.mean()) / more * len(counts)
        assert shares[i] - shares.mean() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_chance_is_what_names_at_random_get():
    generator = np.random.default_rng(0)
    mask = generator.choice(4, (1, 400, 400), p=[0.5, 0.3, 0.2, 0.0])
    there = np.bincount(mask.ravel(), minlength=4)
    named = generator.integers(0, 4, mask.shape)
    assert segmentation.by_chance(there) == pytest.approx(
        brute_force(named, mask, range(4)), abs=0.005
    )
    assert segmentation.of_one_class(there, 0) == pytest.approx(there[0] / mask.size / 3)


class Colours:
    """A runtime whose features are mean colours: of pictures, and of patches of 4 pixels."""

    name, logit_scale = "colours", 50.0

    def encode_image(self, pixels):
        return F.normalize(pixels.mean(dim=(2, 3)), dim=-1)

    def encode_patches(self, pixels):
        return F.normalize(F.avg_pool2d(pixels, 4).permute(0, 2, 3, 1), dim=-1)


@pytest.fixture
def model():
    def preprocess(picture):
        small = picture.resize((16, 16))
        return torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1)

    how = {"size": 16, "mean": [0.5] * 3, "std": [1.0] * 3}
    return OpenModel("colours", Colours(), None, preprocess, how)


@pytest.fixture
def quarters():
    """Four quarters in red, green, blue and green, 64 x 48, with their masks."""
    mask = np.ones((48, 64), int)
    mask[:24, 32:], mask[24:, :32], mask[24:, 32:] = 2, 3, 2
    colours = np.array([[0, 0, 0], [250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)
    return Image.fromarray(colours[mask]), mask


@pytest.mark.parametrize(("by", "least"), [("values", 0.99), ("windows", 0.9), ("regions", 1.0)])
@pytest.mark.parametrize("short_side", [None, 96])
def test_a_model_that_knows_colours_segments_by_them(model, quarters, by, least, short_side):
    picture, mask = quarters
    regions = [mask == n for n in (1, 2, 3)]
    how = Dense(by=by, short_side=short_side)
    named, sure = dense.named(model, torch.eye(3), picture, how, regions)
    assert named.shape == sure.shape == (48, 64)
    assert (named + 1 == mask).mean() >= least
    assert (sure > 1 / 3).all()
    assert (sure <= 1).all()


@pytest.mark.parametrize("by", ["values", "windows"])
@pytest.mark.parametrize("short_side", [None, 96])
def test_a_few_classes_at_a_time_name_what_all_at_once_do(model, by, short_side, monkeypatch):
    """Of noise, where probabilities are near each other."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (40, 56, 3), generator=generator, dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy())
    classes = F.normalize(torch.rand(7, 3, generator=generator), dim=-1)
    how = Dense(by=by, short_side=short_side)
    held = []
    averaged = dense._averaged

    def recorded(*arguments):
        held.append(averaged(*arguments))
        return held[-1]

    monkeypatch.setattr(dense, "_averaged", recorded)
    named, sure = dense.named(model, classes, picture, how)
    (cosines,) = held
    cosines = F.interpolate(cosines[None], (40, 56), mode="bilinear", align_corners=False)[0]
    assert (named == cosines.argmax(dim=0).numpy()).all()
    likely = (50.0 * cosines).softmax(dim=0).amax(dim=0)
    np.testing.assert_allclose(sure, likely, rtol=1e-5)
    pixels = max(cosines[0].numel(), held[0][0].numel())
    for some in (3, 1):
        held.clear()
        monkeypatch.setattr(dense, "FLOATS", some * pixels)
        again, as_sure = dense.named(model, classes, picture, how)
        assert (again == named).all()
        np.testing.assert_allclose(as_sure, sure, rtol=1e-5)
        assert [len(own) for own in held] == ([3, 3, 1] if some == 3 else [1] * 7)


def test_whole_pictures_are_encoded_for_parity_alone(monkeypatch, tiny_folder):
    """Scores are the same without."""
    scenes = {"source": "scenes", "pictures": 2, "words": 3, "size": 32}
    sets = [{"name": "set", "role": "zero-shot", "data": scenes}]
    suite = Suite.model_validate({"name": "mine", "tasks": ["segmentation"], "datasets": sets})
    opened = from_loaded(models.load(tiny_folder))
    sizes = []
    encode = opened.runtime.encode_image

    def counted(pixels):
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(opened.runtime, "encode_image", counted)
    whole = evaluate(suite, opened)
    assert whole.sets["set"].image_features.shape == (2, 16)
    before, sizes[:] = sum(sizes), []
    found = evaluate(suite, opened, keep_features=False)
    assert sum(sizes) == before - 2
    assert found.sets["set"].image_features is None
    assert found.result() == whole.result()


def test_outside_of_regions_nothing_is_named(model, quarters):
    picture, mask = quarters
    regions = [mask == 1, np.zeros_like(mask, bool)]
    named, sure = dense.named(model, torch.eye(3), picture, Dense(by="regions"), regions)
    assert ((named == 0) == (mask == 1)).all()
    assert (named[mask != 1] == -1).all()
    assert (sure[mask != 1] == 0).all()


def test_windows_cover_a_picture_and_a_small_one_is_enlarged(model):
    assert dense.positions(40, 16, 8) == [0, 8, 16, 24]
    assert dense.positions(41, 16, 8) == [0, 8, 16, 24, 25]
    small = Image.new("RGB", (10, 7), "red")
    named, _ = dense.named(model, torch.eye(3), small, Dense(by="values"))
    assert named.shape == (7, 10)
    assert (named == 0).all()


def test_an_engine_without_a_patch_model_is_not_scored_by_values():
    runtime = SimpleNamespace(name="onnx", precision="int8")
    sets = [SimpleNamespace(name=by, dense=Dense(by=by)) for by in ("values", "windows")]
    texts = SimpleNamespace(model=SimpleNamespace(runtime=runtime))
    found = task.score(None, None, texts, suite=None, described=sets[0], clusters=None)
    assert found.metrics == {}
    assert found.remarks == ["onnx has no patch model in int8, so no score by values"]
    engine = SimpleNamespace(runtime=runtime, suite=SimpleNamespace(datasets=sets))
    assert parity._cannot(engine, "values", "miou")
    assert not parity._cannot(engine, "windows", "miou")
    runtime.makes_patches = True
    assert not parity._cannot(engine, "values", "miou")
