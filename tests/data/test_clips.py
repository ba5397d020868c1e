"""Clips: which frames are taken, how they become tensors, the built-in sets of them."""

import hashlib
from collections import defaultdict

import numpy as np
import pytest
import torch
from PIL import Image

from radapter.data import emoji, emoji_video, moving, open_data
from radapter.data.clips import places, seen, shares, stacked
from radapter.data.pairs import Pairs, collate, training_transform
from radapter.data.settings import Augmentation
from radapter.data.sources.emoji_video import EmojiVideoData
from radapter.data.sources.moving_emoji import MovingEmojiData
from radapter.training.feeding import Pixels


def test_frames_are_the_middles_of_equal_segments():
    assert places(8, shares(4)) == [1, 3, 5, 7]
    assert places(100, shares(3)) == [16, 50, 83]
    assert places(7, shares(7)) == places(7, shares(12)) == [0, 1, 2, 3, 4, 5, 6]
    assert places(1, shares(5)) == [0]


def test_in_training_frames_are_drawn_from_their_segments():
    torch.manual_seed(0)
    draws = np.array([places(40, shares(4, chance=True)) for _ in range(200)])
    assert (draws // 10 == np.arange(4)).all()
    assert all(set(column) == set(range(10 * k, 10 * k + 10)) for k, column in enumerate(draws.T))
    assert places(3, shares(4, chance=True)) == [0, 1, 2]


def test_a_view_is_the_first_frame_or_another_order():
    assert seen("abcd", "clip", "x") == list("abcd")
    assert seen("abcd", "first-frame", "x") == ["a"]
    for number in range(2, 9):
        frames = list(range(number))
        for name in ("x", "y", "z"):
            shuffled = seen(frames, "shuffled", name)
            assert sorted(shuffled) == frames != shuffled
            assert seen(frames, "shuffled", name) == shuffled
    assert seen([0], "shuffled", "x") == [0]
    assert len({tuple(seen(range(8), "shuffled", str(n))) for n in range(50)}) == 50


def test_short_clips_are_filled_with_what_is_no_frame():
    full, short = torch.rand(3, 3, 4, 5), torch.rand(1, 3, 4, 5)
    found = stacked([full, list(short)])
    assert found.shape == (2, 3, 3, 4, 5)
    assert torch.equal(found[0], full)
    assert torch.equal(found[1, :1], short)
    assert found[1, 1:].isnan().all()
    in_bytes = [(255 * clip).to(torch.uint8) for clip in (full, short)]
    found = stacked(in_bytes)
    assert (found.dtype, found[1, 1:].unique().tolist()) == (torch.int16, [-1])
    pixels = Pixels([0.5, 0.4, 0.3], [0.2, 0.3, 0.25], torch.device("cpu"))
    made = pixels(found)
    assert torch.equal(made[0], pixels(in_bytes[0]))
    assert torch.equal(made[1, :1], pixels(in_bytes[1]))
    assert made[1, 1:].isnan().all()
    assert stacked(in_bytes[:1]).dtype == torch.uint8


def test_all_frames_of_a_training_clip_are_changed_alike():
    settings = MovingEmojiData(source="moving-emoji", task="captions", concepts=2)
    still = open_data(settings.model_copy(update={"view": "first-frame"}))
    harsh = Augmentation(crop=(0.3, 0.5), colour=0.8, rotate=90, flip=0.5)
    transform = training_transform(harsh, {"size": 32})

    def equal_frames(item):
        return transform([item[0]] * 4)

    pairs = Pairs(still, settings, equal_frames, seed=3)
    batch = collate([pairs[0, i] for i in range(4)], lambda texts, context_length: texts)
    assert batch["images"].shape == (4, 4, 3, 32, 32)
    assert batch["images"].dtype == torch.uint8
    for clip in batch["images"]:
        assert torch.equal(clip, clip[:1].expand_as(clip))
    assert len({clip.numpy().tobytes() for clip in batch["images"]}) == 4


# ---------------------------------------------------------------- moving emoji


def moved(**values):
    return open_data(MovingEmojiData(source="moving-emoji", **{"task": "captions", **values}))


@pytest.mark.parametrize("start", ["fixed", "random"])
def test_a_motion_is_its_opposite_backwards(start):
    """The same frames bit for bit, so that no mean of frames can tell them apart."""
    dataset = moved(concepts=2, split="test", start=start, styles=["noto", "twemoji"])
    assert len(dataset) == 2 * 2 * 10
    for i in range(0, len(dataset), 2):
        one, other = ([f.tobytes() for f in dataset.read(k)] for k in (i, i + 1))
        assert len(set(one)) == 8
        assert sorted(one) == sorted(other)
        turns = [one[::-1][k:] + one[::-1][:k] for k in range(8)]
        assert other in (turns if start == "random" else turns[:1])
        assert dataset.choices[i][:2] == dataset.choices[i + 1][1::-1]
    for texts, own in zip(dataset.captions, dataset.choices, strict=True):
        assert texts == own[:1]
        assert len(set(own)) == len(moving.MOTIONS) == 10


def centre(picture):
    """Of what is drawn, as shares of the picture."""
    ink = 255.0 - np.asarray(picture.convert("L"), dtype=float)
    rows, columns = (np.arange(size) for size in ink.shape)
    return (ink.sum(0) @ columns) / ink.sum(), (ink.sum(1) @ rows) / ink.sum(), ink.sum()


def test_motions_are_what_their_words_say():
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (26, 26, 38, 38))
    said = {m.words: moving.frames(picture, m, 8) for m in moving.MOTIONS}
    ends = {words: (centre(made[0]), centre(made[-1])) for words, made in said.items()}
    for words, axis, sign in (
        ("moving to the right", 0, 1), ("moving to the left", 0, -1), ("moving down", 1, 1),
        ("moving up", 1, -1), ("coming closer", 2, 1), ("moving away", 2, -1), ("appearing", 2, 1),
        ("disappearing", 2, -1),
    ):  # fmt: skip
        first, last = ends[words]
        assert sign * (last[axis] - first[axis]) > 10, words
    above = Image.new("RGB", (64, 64), "white")
    above.paste("black", (28, 4, 36, 12))  # at 12 o'clock
    turned = moving.frames(above, moving.MOTIONS[4], 9)
    assert moving.MOTIONS[4].words == "turning clockwise"
    assert centre(turned[0])[0] < centre(turned[4])[0] < centre(turned[8])[0]
    assert centre(turned[4])[0] == pytest.approx(31.5, abs=0.1)


def test_random_starts_differ_and_are_drawn_anew_in_training():
    dataset = moved(concepts=3, start="random")
    firsts = {hashlib.sha256(dataset.read(i)[0].tobytes()).digest() for i in range(len(dataset))}
    assert len(firsts) > 12
    torch.manual_seed(0)
    drawn = {dataset.read_anew(0)[0].tobytes() for _ in range(40)}
    assert len(drawn) == 8
    assert moved(concepts=3).read_anew is None
    assert moved(concepts=3, start="random", augmentation=None).read_anew is None


def test_concepts_of_a_split_and_a_part_of_them():
    few, more = (moved(split="test", concepts=n) for n in (5, 20))
    concepts = {split: {key.split("/")[2] for key in moved(split=split).keys}
                for split in ("train", "test", "validation")}  # fmt: skip
    assert {key.split("/")[2] for key in few.keys} < {key.split("/")[2] for key in more.keys}
    assert {key.split("/")[2] for key in more.keys} < concepts["test"]
    assert not concepts["train"] & concepts["test"]
    assert set.union(*concepts.values()) == {c["hexcode"] for c in emoji.concepts()}
    named = moved(task="classification", concepts=2)
    assert named.class_names == [motion.words for motion in moving.MOTIONS]
    for key, label in zip(named.keys, named.labels, strict=True):
        assert key.split("/")[0].replace("-", " ") == named.class_names[label]


# ---------------------------------------------------------------- animated emoji


def test_every_clip_is_a_strip_of_eight_frames_that_move():
    clips = emoji_video.clips()
    assert set(emoji_video._index()) == {clip["hexcode"] for clip in clips}
    assert len({clip["name"] for clip in clips}) == len(clips) == 669
    for clip in clips[::40]:
        frames = emoji_video.frames(clip["hexcode"])
        assert [frame.size for frame in frames] == [(64, 64)] * 8
        assert len({frame.tobytes() for frame in frames}) > 1, clip["name"]


def test_what_man_woman_and_person_do_is_in_one_fold():
    folds = defaultdict(set)
    for clip in emoji_video.clips():
        words = clip["name"].split(" ", 1)
        does = words[1] if words[0] in ("man", "woman", "person") and words[1:] else clip["name"]
        folds[does].add(clip["fold"])
    assert {does for does, own in folds.items() if len(own) > 1} == set()
    assert set.union(*folds.values()) == set(range(5))


def test_clips_are_in_the_folds_of_the_pictures():
    """So that a model trained on pictures of a fold is tested on clips of other things."""
    known = {concept["hexcode"]: concept["fold"] for concept in emoji.concepts()}
    both = [clip for clip in emoji_video.clips() if clip["hexcode"] in known]
    other = [clip["name"] for clip in both if clip["fold"] != known[clip["hexcode"]]]
    assert len(both) > 350
    assert other == ["man dancing"]  # with "woman dancing", which is of another fold


def test_the_notice_names_whose_work_the_clips_are():
    notice = (emoji_video.HERE / "NOTICE.md").read_text(encoding="utf-8")
    licences = (emoji_video.HERE / "LICENSES.txt").read_text(encoding="utf-8")
    for part in ("Microsoft Corporation", "LobeHub", "was not verified", "emojibase", "Unicode"):
        assert part in notice
    assert "Copyright (c) Microsoft Corporation (fluent-emoji-anim)" in licences
    assert "Copyright (c) 2023 LobeHub (fluent-emoji-anim)" in licences
    assert "UNICODE LICENSE V3" in licences
    dataset = open_data(EmojiVideoData(source="emoji-video", task="captions"))
    assert all(key.startswith("fluent-emoji-anim/") for key in dataset.keys)
