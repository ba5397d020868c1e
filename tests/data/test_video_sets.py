"""Published sets of videos, in miniatures of their layouts."""

import pytest
import video_trees
from video_files import number_of, video

from radapter.data import open_data
from radapter.data.settings import MissingData
from radapter.data.sources import video_sets
from radapter.data.sources.video_sets import HASHES, LAYOUTS, VideoSetsData, hash_of
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import checking
from radapter.evaluation.suite import load_suite


def settings(root, name, split="test", **values):
    task = LAYOUTS[name].task
    own = {"source": "video-sets", "data_root": str(root), "frames": 2, "task": task}
    return VideoSetsData(dataset=name, split=split, **{**own, **values})


@pytest.fixture
def filled(tmp_path):
    def fill(name):
        return getattr(video_trees, name.replace("-", "_"))(tmp_path / name)

    return fill


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_split_is_read_as_published(name, filled, tmp_path):
    counts = filled(name)
    assert set(counts) == set(LAYOUTS[name].splits)
    seen = set()
    for split, number in counts.items():
        dataset = open_data(settings(tmp_path, name, split))
        assert len(dataset) == number
        assert not seen & set(dataset.keys)
        seen |= set(dataset.keys)
        assert all(len(dataset.read(i)) == 2 for i in range(number))
        assert dataset.stamp(0)[0] > 0
    absent = {"train", "validation", "test"} - set(counts)
    for split in absent:
        with pytest.raises(UsageError, match=f"{name} has no split '{split}'"):
            open_data(settings(tmp_path, name, split))


def test_the_texts_of_each_set(filled, tmp_path):
    def texts(name, split="test", **values):
        filled(name)
        return open_data(settings(tmp_path, name, split, **values)).captions

    assert texts("msr-vtt") == [["test, video9770"], ["test, video7010"]]
    assert texts("msr-vtt", "train")[2] == ["video7020 as 0", "video7020 as 1"]
    assert len(texts("msr-vtt", "train", train_list="7k")) == 2
    assert (
        texts("msvd")
        == [["a thing seen 0 times", "a thing seen 1 times", "a thing seen 2 times"]] * 2
    )
    assert texts("lsmdc") == [["SOMEONE turns test 0."], ["SOMEONE turns test 1."]]
    (first, *_), _ = texts("didemo")
    assert first == " ".join(
        f"moment {k} of 10015564@N08_365508420_d8b58466fa.mov" for k in range(3)
    )
    assert texts("activitynet") == [["First 2. Then more."], ["First 3. Then more."]]


def test_the_classes_of_each_set(filled, tmp_path):
    filled("ucf101")
    dataset = open_data(settings(tmp_path, "ucf101"))
    assert dataset.class_names == ["Apply Eye Makeup", "Archery", "Yo Yo"]
    assert dataset.labels == [0, 1]
    filled("moments-in-time")
    dataset = open_data(settings(tmp_path, "moments-in-time"))
    assert dataset.class_names == ["aiming", "playing music", "yawning"]
    assert dataset.labels == [1, 1, 0, 0, 2, 2]


def test_captions_of_msvd_as_json(filled, tmp_path):
    filled("msvd")
    names = ["eyhzdC936uk_15_27", "f-24IxG9ijw_25_40"]
    (tmp_path / "msvd" / "captions_msvd.json").write_text(
        f'{{"{names[0]}": ["one", "two"], "{names[1]}": ["three"]}}'
    )
    assert open_data(settings(tmp_path, "msvd")).captions == [["one", "two"], ["three"]]
    with pytest.raises(BrokenInput, match=r"captions_msvd\.json has no caption of 1 videos"):
        open_data(settings(tmp_path, "msvd", "validation"))


def test_a_list_is_told_from_the_published_one(filled, tmp_path, monkeypatch):
    filled("msvd")
    dataset = open_data(settings(tmp_path, "msvd"))
    assert dataset.protocol["list"] == "another one than published"
    suite = load_suite("video-retrieval").without(["msr-vtt", "lsmdc", "didemo", "activitynet"])
    monkeypatch.setenv("RADAPTER_DATA", str(tmp_path))
    findings = checking.check(suite)["msvd"]["findings"]
    assert "the test list names other videos than the published one" in findings
    assert any("2 of 670 pictures" in finding for finding in findings)
    monkeypatch.setitem(HASHES, ("msvd", "test"), hash_of(dataset.keys[::-1]))
    dataset = open_data(settings(tmp_path, "msvd"))
    assert dataset.protocol["list"] == "as published"
    filled("lsmdc")
    assert open_data(settings(tmp_path, "lsmdc")).protocol["list"] == "not compared"


def test_what_is_missing_says_where_it_is_published(tmp_path, filled, monkeypatch):
    monkeypatch.setenv("RADAPTER_DATA", str(tmp_path))
    with pytest.raises(BrokenInput) as refused:
        load_suite("video-retrieval").open()
    text = str(refused.value)
    for name in ("msr-vtt", "msvd", "lsmdc", "didemo", "activitynet"):
        assert text.count(f"\n{name}: {name} is not under") == 1
        assert f"its folder is {name}" in text
    assert "-shuffled" not in text
    filled("msvd")
    with pytest.raises(BrokenInput, match="add --without msr-vtt --without lsmdc --without didemo"):
        load_suite("video-retrieval").open()
    (tmp_path / "msvd" / "test_list.txt").unlink()
    with pytest.raises(MissingData, match=r"No such file: .*test_list\.txt"):
        open_data(settings(tmp_path, "msvd"))


@pytest.mark.parametrize("name", ["video-retrieval", "video-actions"])
def test_every_set_of_a_suite_has_its_controls(name):
    suite = load_suite(name)
    for dataset in suite.datasets:
        if dataset.role == "control":
            continue
        own = {d.name: d for d in suite.datasets if d.name in suite.names_of(dataset.name)}
        views = {n.removeprefix(dataset.name): d.data.view for n, d in own.items()}
        assert views == {"": "clip", "-first-frame": "first-frame", "-shuffled": "shuffled"}
        same = {(d.published.pictures, d.data.frames, str(d.templates)) for d in own.values()}
        assert len(same) == 1
    names = {d.data.dataset for d in suite.datasets}
    kind = "classification" if name == "video-actions" else "captions"
    assert names == {n for n, layout in LAYOUTS.items() if layout.task == kind}


def test_real_videos_in_the_published_layout(tmp_path):
    def make(path, number):
        video(path, 6 + number)

    pytest.importorskip("av")
    video_trees.ucf101(tmp_path / "ucf101", make)
    dataset = open_data(settings(tmp_path, "ucf101", "train", frames=4))
    assert dataset.keys[0] == "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c00.avi"
    assert [number_of(picture, 6) for picture in dataset.read(0)] == [0, 2, 3, 5]


def test_a_share_is_held_out_where_the_set_has_no_split_for_it(filled, tmp_path):
    filled("ucf101")
    own = settings(tmp_path, "ucf101", "train", hold_out=0.4)
    train, held = open_data(own), open_data(own.held_out())
    assert sorted(train.keys + held.keys) == sorted(
        open_data(settings(tmp_path, "ucf101", "train")).keys
    )
    assert 0 < len(held) < 6
    assert (
        open_data(settings(tmp_path, "ucf101", hold_out=0.4)).keys
        == open_data(settings(tmp_path, "ucf101")).keys
    )
    assert settings(tmp_path, "ucf101", "train").held_out() is None
    assert settings(tmp_path, "msvd", "train").held_out().split == "validation"


def test_a_wrong_line_is_named(filled, tmp_path):
    filled("lsmdc")
    path = tmp_path / "lsmdc" / "LSMDC16_challenge_1000_publictect.csv"
    path.write_text(path.read_text() + "a clip without times\n")
    with pytest.raises(BrokenInput, match=r"publictect\.csv: a line has 1 cells, not 6: a clip"):
        open_data(settings(tmp_path, "lsmdc"))
    filled("ucf101")
    path = tmp_path / "ucf101" / "ucfTrainTestlist" / "classInd.txt"
    path.write_text("1 Archery\n")
    with pytest.raises(BrokenInput, match="the list of classes has no 'Apply Eye Makeup'"):
        open_data(settings(tmp_path, "ucf101"))
    assert video_sets._in_words("YoYo") == "Yo Yo"
