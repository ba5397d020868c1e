"""Clips through models of pictures: the mean of frames, in evaluation and in training."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trees

from radapter import models
from radapter.data.sources.moving_emoji import MovingEmojiData
from radapter.data.sources.videos import VideosData
from radapter.errors import BrokenInput
from radapter.evaluation.cache import Cache
from radapter.evaluation.encoding import encode_set
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite, SuiteDataset, load_suite
from radapter.methods.batch_rows import bernoulli_of_rows, of_frames, rows
from radapter.models.frames import mean_of_frames
from radapter.runtimes.opened import from_loaded
from radapter.training.encoding import encode_pictures


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return models.load(tiny_folder)


def numpy_mean(features, counts):
    """Per clip: unit norm of the mean of unit-norm rows."""
    found = []
    for own, count in zip(features, counts, strict=True):
        rows = [row / np.sqrt((row**2).sum()) for row in own[:count]]
        mean = sum(rows) / count
        found.append(mean / np.sqrt((mean**2).sum()))
    return np.stack(found)


def test_a_clip_is_the_mean_of_the_frames_that_it_has(loaded):
    counts, generator = (4, 1, 3), torch.Generator().manual_seed(0)
    clips = torch.randn(3, 4, 3, 32, 32, generator=generator)
    for clip, count in zip(clips, counts, strict=True):
        clip[count:] = torch.nan
    with torch.no_grad():
        each = loaded.model.encode_image(clips.nan_to_num(7.0).flatten(0, 1)).unflatten(0, (3, 4))
        found = mean_of_frames(loaded.model.encode_image, clips)
        assert torch.equal(encode_pictures(loaded.model, clips, None), found)
    assert np.allclose(found, numpy_mean(each.numpy().astype(np.float64), counts), atol=1e-6)


class Runtime:
    """Counts what it encodes, and keeps how much at a time."""

    name, device, precision, provenance, logit_scale, identity = "n", "cpu", "fp32", {}, 1.0, None

    def __init__(self):
        self.sizes = []

    def encode_image(self, pixels):
        self.sizes.append(tuple(pixels.shape))
        return F.normalize(pixels.mean(dim=(2, 3)) + 0.1, dim=-1)

    def encode_video(self, clips):
        return mean_of_frames(self.encode_image, clips)


def test_a_batch_has_as_many_frames_as_one_of_pictures(loaded):
    settings = MovingEmojiData(source="moving-emoji", task="captions", concepts=2, split="test")
    dataset, runtime = settings.open(), Runtime()
    pictures = [(key, dataset, i) for i, key in enumerate(dataset.keys)]
    (features,), broken = encode_set(
        [runtime], loaded.preprocess, loaded.config["preprocess_cfg"], pictures, batch_size=32,
        cache=None,
    )  # fmt: skip
    assert not broken
    assert runtime.sizes == [(4 * 8, 3, 32, 32)] * 5
    # A motion and its opposite have the same frames, and so the same mean.
    assert torch.allclose(features[0::2], features[1::2], atol=1e-6)
    assert not torch.allclose(features[0], features[2], atol=1e-3)


def described(**values):
    data = MovingEmojiData(source="moving-emoji", task="captions", split="test", **values)
    return SuiteDataset(name=data.view, role="zero-shot", data=data)


def test_features_of_clips_are_kept_by_what_is_seen_of_them(loaded, tmp_path):
    opened, cache = from_loaded(loaded), Cache(tmp_path, 10**8)

    def score(**values):
        suite = Suite(name="m", tasks=["motion"], datasets=[described(concepts=2, **values)])
        return evaluate(suite, opened, cache=cache).sets[suite.datasets[0].name].image_features

    whole, first = score(), score(view="first-frame")
    entries = len(list(tmp_path.glob("*.safetensors")))
    assert torch.equal(score(), whole)
    assert len(list(tmp_path.glob("*.safetensors"))) == entries
    assert not torch.allclose(first, whole, atol=1e-3)
    assert not torch.equal(score(frames=5), whole)


def test_the_mean_of_frames_has_half_of_the_directions_right(loaded):
    """By construction: of a motion and its opposite one is right, or both tie."""
    datasets = [described(concepts=5, view=view) for view in ("clip", "shuffled", "first-frame")]
    found = evaluate(Suite(name="m", tasks=["motion"], datasets=datasets), from_loaded(loaded))
    for view in ("clip", "shuffled"):
        scored = found.sets[view].metrics["direction_accuracy"]
        assert scored.scores.mean() == 0.5 == scored.chance
        assert (scored.scores[0::2] + scored.scores[1::2] == 1).all()
    assert found.sets["clip"].metrics["motion_accuracy"].chance == pytest.approx(0.1)


def test_a_motion_is_right_if_its_caption_is_nearer_than_all_others():
    from radapter.evaluation.tasks import motion

    texts = ["a right", "a left", "a up", "b right", "b left", "b up"]
    vectors = torch.eye(6)

    class Texts:
        def captions(self, asked):
            return vectors[[texts.index(text) for text in asked]]

    dataset = dataclasses.replace(
        MovingEmojiData(source="moving-emoji", task="captions", concepts=1).open(),
        choices=[["a right", "a left", "a up"]] * 4,
    )
    near = {"a right": 3.0, "a left": 2.0, "a up": 1.0}
    features = torch.zeros(4, 6)
    orders = (near, near | {"a up": 4.0}, near | {"a left": 4.0}, near | {"a left": 3.0})
    for row, values in zip(features, orders, strict=True):
        for text, value in values.items():
            row[texts.index(text)] = value
        row[texts.index("b right")] = 9.0  # another thing is no choice
    found = motion.score(
        dataset, features, Texts(), suite=None, described=None, clusters=np.arange(4)
    )
    assert found.metrics["motion_accuracy"].scores.tolist() == [1, 0, 0, 1 / 2]
    assert found.metrics["direction_accuracy"].scores.tolist() == [1, 1, 0, 1 / 2]
    assert found.metrics["motion_accuracy"].chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "name", ["emoji-video", "emoji-video-short", "moving-emoji", "moving-emoji-short"]
)
def test_controls_stand_in_every_table_and_in_no_mean(name):
    """Suites of clips have the first frame and shuffled frames beside each set."""
    suite = load_suite(name)
    for dataset in suite.datasets:
        if dataset.role != "control":
            views = [d.data.view for d in suite.datasets if d.name.startswith(dataset.name)]
            assert views == ["clip", "first-frame", "shuffled"]
    assert "control" not in suite.roles()


def test_frames_of_a_clip_share_what_is_drawn_for_it():
    torch.manual_seed(0)
    whole = bernoulli_of_rows(torch.empty(12, 1), 0.5)
    torch.manual_seed(0)
    with rows(4, 12), of_frames(3):
        part = bernoulli_of_rows(torch.empty(6, 1), 0.5)
    assert torch.equal(part, whole[4:6].repeat_interleave(3, dim=0))


def test_top_five_counts_fewer_than_five_wrong_answers_above():
    from radapter.evaluation.tasks import top_five

    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3], [1.0, 1, 1, 1, 1, 1, 1]])
    found = []
    for label in range(7):
        dataset = type(
            "D", (), {"class_names": list("abcdefg"), "answers": [], "labels": [label] * 2}
        )
        head = type("H", (), {"logits": staticmethod(lambda f: scores[f[:, 0].long()])})
        texts = type("T", (), {"head": staticmethod(functools.partial(lambda h, *_: h, head))})
        described = type("S", (), {"data": type("X", (), {"identical_classes": "one"})})
        suite = type("S", (), {"prompts": staticmethod(lambda d: ["{}"])})
        result = top_five.score(
            dataset, torch.tensor([[0.0], [1.0]]), texts, suite=suite, described=described,
            clusters=np.arange(2),
        )  # fmt: skip
        found.append(result.metrics["top5_accuracy"].scores.tolist())
        assert result.metrics["top5_accuracy"].chance == pytest.approx(5 / 7)
    assert [first for first, _ in found] == [True] * 5 + [False] * 2
    assert not any(tied for _, tied in found)


def test_broken_clips_are_counted_as_broken_pictures_are(loaded, tmp_path):
    rows = ["video,caption"]
    for number in range(4):
        frames = [trees.draw(7 * number + k) for k in range(4)]
        frames[0].save(tmp_path / f"{number}.gif", save_all=True, append_images=frames[1:])
        rows.append(f"{number},clip {number}")
    (tmp_path / "1.gif").write_bytes(b"")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    data = VideosData(
        source="videos", root=str(tmp_path), path=str(tmp_path / "l.csv"), task="captions",
        split="all", broken_images=1,
    )  # fmt: skip
    suite = Suite(
        name="m", tasks=["retrieval"],
        datasets=[SuiteDataset(name="mine", role="zero-shot", data=data)],
    )  # fmt: skip
    facts = evaluate(suite, from_loaded(loaded)).sets["mine"].facts
    assert (facts["pictures"], facts["broken"]) == (3, 1)
    assert facts["left_out"]["broken"]["first"] == ["1"]
    with pytest.raises(BrokenInput, match=r"Video cannot be read: .*1\.gif"):
        evaluate(suite.allowing(0), from_loaded(loaded))
