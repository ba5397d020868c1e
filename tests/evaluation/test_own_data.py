"""`eval --data` scores what lies at a path, and never the training half of it in silence."""

import json
import tarfile
from types import SimpleNamespace

import pytest
import tiny
import torch
import trees
from video_files import animated, video

from radapter import models
from radapter.data import open_data
from radapter.data.sources.moving_emoji import MovingEmojiData
from radapter.errors import UsageError
from radapter.evaluation.adapting import suites_of_run, with_controls
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.own_data import suite_of
from radapter.recipe import parse
from radapter.runtimes.opened import from_loaded


@pytest.fixture
def scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADAPTER_DATA", "")

    def call(path):
        return open_data(suite_of(path, ["a {}."]).datasets[0].data).keys

    return call


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_folders_of_splits_are_refused(scored, tmp_path, names):
    for name in names:
        tiny.draw_shapes(tmp_path / "s" / name, each=2)
    with pytest.raises(UsageError, match=f"--data s/{names[-1]}"):
        scored("s")
    assert len(scored(f"s/{names[-1]}")) == 6


def test_one_split_alone_is_all_that_lies_there(scored, tmp_path):
    tiny.draw_shapes(tmp_path / "s" / "train", each=2)
    assert len(scored("s")) == 6


def karpathy(root, splits):
    trees.flickr30k(root)
    path = root / "dataset_flickr30k.json"
    content = json.loads(path.read_text())
    content["images"] = [image for image in content["images"] if image["split"] in splits]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test")])
def test_a_caption_file_is_scored_on_its_test_split(scored, tmp_path, splits):
    karpathy(tmp_path / "f", splits)
    assert len(scored("f")) == 4


def test_a_caption_file_without_a_test_split(scored, tmp_path):
    karpathy(tmp_path / "f", ("train", "val"))
    with pytest.raises(UsageError, match="no test split"):
        scored("f")


def test_rows_of_splits_are_refused(scored, tmp_path):
    rows = [f"{i}.jpg,{'cat' if i % 2 else 'dog'},{'test' if i > 3 else 'train'}" for i in range(6)]
    for i in range(6):
        trees.jpeg(tmp_path / "s" / f"{i}.jpg", i)
    (tmp_path / "s/a.csv").write_text("\n".join(["image,label,split", *rows]))
    with pytest.raises(UsageError, match="a folder or table of its own"):
        scored("s")


def test_shards_of_splits_are_refused(scored, tmp_path):
    trees.jpeg(tmp_path / "0.jpg", 0)
    (tmp_path / "0.txt").write_text("a picture")
    (tmp_path / "s").mkdir()
    for name in ("train", "test"):
        with tarfile.open(tmp_path / "s" / f"{name}-000.tar", "w") as tar:
            for ending in ("jpg", "txt"):
                tar.add(tmp_path / f"0.{ending}", f"{name}0.{ending}")
    with pytest.raises(UsageError, match="splits"):
        scored("s")


def test_paths_of_several_splits_are_refused(scored, tmp_path):
    for i in range(6):
        trees.jpeg(tmp_path / "s" / ("train" if i < 4 else "test") / f"{i}.jpg", i)
    names = [f"{'train' if i < 4 else 'test'}/{i}.jpg,a picture {i}" for i in range(6)]
    (tmp_path / "s/a.csv").write_text("\n".join(["image,caption", *names]))
    with pytest.raises(UsageError, match="several splits"):
        scored("s")


def test_class_folders_of_videos_with_their_controls(tmp_path, tiny_folder):
    """What they owe to time stands beside them; of pictures there is nothing to control."""
    for name in ("falling", "rising"):
        for number in range(2):
            video(tmp_path / "v" / name / f"{number}.mp4", 8)
    suite = with_controls(suite_of(str(tmp_path / "v"), ["a {}."]))
    roles = {own.name: own.role for own in suite.datasets}
    control = dict.fromkeys(("v-first-frame", "v-shuffled"), "control")
    assert roles == {"v": "in-distribution", **control}
    found = evaluate(suite, from_loaded(models.load(tiny_folder)))
    assert [len(own.metrics["accuracy"].scores) for own in found.sets.values()] == [4, 4, 4]
    features = [own.image_features for own in found.sets.values()]
    assert (features[0] - features[1]).abs().max() > 1e-4
    assert torch.allclose(features[0], features[2], atol=1e-5)  # a mean knows no order
    trained = MovingEmojiData(source="moving-emoji", frames=3)
    suite = suite_of(str(tmp_path / "v"), ["a {}."], trained=trained)
    assert suite.datasets[0].data.frames == 3
    tiny.draw_shapes(tmp_path / "s", each=2)
    pictures = suite_of(str(tmp_path / "s"), ["a {}."])
    assert with_controls(pictures) == pictures


def test_a_table_of_videos_with_the_frames_of_the_run(tmp_path, monkeypatch):
    """A model of clips takes no more frames than it was trained with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADAPTER_DATA", "")
    rows = [animated(tmp_path / "v" / f"{i}.gif", i).stem + f",thing {i}" for i in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["video,caption", *rows]))
    text = "name: a\nmodel: m\nmethod: {name: full}\ndata: "
    for section, frames in (("{source: moving-emoji, frames: 3}", 3), ("{source: emoji}", 12)):
        recipe = parse(text + section)
        run = SimpleNamespace(recipe=lambda own=recipe: own, class_names=lambda: None)
        (suite,) = suites_of_run(run, data="t.csv", pictures="v")
        assert suite.tasks == ["retrieval"]
        own = {d.name: d.data for d in suite.datasets}
        assert list(own) == ["t.csv", "t.csv-first-frame", "t.csv-shuffled"]
        assert {data.frames for data in own.values()} == {frames}
        assert len(open_data(own["t.csv"]).read(0)) == min(frames, 4)
