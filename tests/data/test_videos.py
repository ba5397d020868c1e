"""Clips on a disk: real videos of several kinds, animated pictures, folders of frames."""

import dataclasses
import json
import sys

import pytest
import torch
import trees
from PIL import Image
from video_files import number_of, turn, two_colours, video

from radapter.data import open_data, videos
from radapter.data.clip_files import find_clips, list_clips
from radapter.data.pixels import USUAL, without_prefix
from radapter.data.sources.videos import VideosData
from radapter.data.videos import Videos, animated, decoded, shares
from radapter.errors import BrokenInput, MissingDependency

KINDS = {".mp4": "mpeg4", ".avi": "mpeg4", ".mkv": "mpeg4", ".mpg": "mpeg1video", ".webm": "libvpx"}


def needs_av():
    return pytest.importorskip("av")


def numbers(pictures, frames):
    return [number_of(picture, frames) for picture in pictures]


@pytest.mark.parametrize("ending", KINDS)
def test_the_frames_of_a_video_are_the_middles_of_its_segments(ending, tmp_path):
    rate = 25 if ending == ".mpg" else 10  # MPEG-1 knows few rates
    path = video(tmp_path / f"a{ending}", 40, codec=KINDS[ending], rate=rate)
    found = decoded(path, shares(4), USUAL)
    assert [picture.size for picture in found] == [(64, 48)] * 4
    assert all(picture.mode == "RGB" for picture in found)
    for number, wanted in zip(numbers(found, 40), (5, 15, 25, 35), strict=True):
        assert abs(number - wanted) <= 1  # the length of a stream is said to a frame


def test_a_clip_with_fewer_frames_gives_each_once(tmp_path):
    path = video(tmp_path / "a.mp4", 5)
    assert numbers(decoded(path, shares(12), USUAL), 5) == [0, 1, 2, 3, 4]
    assert numbers(decoded(path, shares(3), USUAL), 5) == [0, 2, 4]


def test_in_training_frames_are_drawn_in_their_segments(tmp_path):
    clips = Videos(tmp_path, [video(tmp_path / "a.mp4", 40).name], 4, "clip", USUAL)
    torch.manual_seed(0)
    draws = [numbers(clips.read_anew(0), 40) for _ in range(12)]
    assert all(k == number // 10 for draw in draws for k, number in enumerate(draw))
    assert len({tuple(draw) for draw in draws}) > 8


def test_a_long_video_is_not_read_whole(tmp_path, monkeypatch):
    path, read = video(tmp_path / "a.mp4", 1200, every=10), []
    frames_of = videos._frames

    def counted(container, stream):
        for frame in frames_of(container, stream):
            read.append(frame.pts)
            yield frame

    monkeypatch.setattr(videos, "_frames", counted)
    found = decoded(path, shares(3), USUAL)
    assert [abs(n - m) <= 6 for n, m in zip(numbers(found, 1200), (200, 600, 1000), strict=True)]
    assert len(read) < 60  # of 1,200: a key frame's group and a frame each


def test_frames_are_turned_as_a_phone_says_and_may_be_left_as_they_lie(tmp_path):
    path = turn(two_colours(tmp_path / "a.mp4"))  # what is on the left is to be seen above
    for picture in decoded(path, shares(3), USUAL):
        assert picture.size == (48, 64)
        assert picture.getpixel((12, 8))[0] < 50 < 200 < picture.getpixel((12, 56))[0]
    for picture in decoded(path, shares(3), dataclasses.replace(USUAL, orientation="ignore")):
        assert picture.size == (64, 48)


def test_the_same_frames_with_and_without_a_leap(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", 300, every=7)
    leaping = decoded(path, shares(5), USUAL)
    monkeypatch.setattr(videos, "FAR", 1e9)
    in_order = decoded(path, shares(5), USUAL)
    assert [p.tobytes() for p in leaping] == [p.tobytes() for p in in_order]


@pytest.mark.parametrize(
    ("ending", "codec"), [(".ts", "mpeg2video"), (".ts", "libx264"), (".mpeg", "mpeg2video")]
)
def test_streams_without_an_index_give_the_same_frames(ending, codec, tmp_path, monkeypatch):
    path = video(tmp_path / f"a{ending}", 500, codec=codec, rate=25, every=100)
    leaping = decoded(path, shares(3), USUAL)
    monkeypatch.setattr(videos, "FAR", 1e9)
    in_order = decoded(path, shares(3), USUAL)
    assert [p.tobytes() for p in leaping] == [p.tobytes() for p in in_order]


@pytest.mark.parametrize(("ending", "codec"), [(".mpg", "mpeg1video"), (".webm", "libvpx")])
def test_a_length_that_is_not_said_is_counted_once_and_nothing_decoded(
    ending, codec, tmp_path, monkeypatch
):
    path = video(tmp_path / f"a{ending}", 100, codec=codec, rate=25)
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"XURATION"))
    decoding, counting = [], videos._counted
    monkeypatch.setattr(videos, "_frames", lambda *_: decoding.append(1))
    before = counting.cache_info().misses
    assert [videos.length_of(path) for _ in range(2)] == pytest.approx([4.0, 4.0])
    assert not decoding
    assert counting.cache_info().misses == before + 1
    video(path, 50, codec=codec, rate=25)
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"XURATION"))
    assert videos.length_of(path) == pytest.approx(2.0)  # another file now


def test_sound_that_is_longer_than_the_pictures_does_not_matter(tmp_path):
    path = video(tmp_path / "a.mp4", 20, sound=6.0)
    assert numbers(decoded(path, shares(2), USUAL), 20) == [5, 15]
    path = video(tmp_path / "b.mkv", 20, sound=6.0)
    assert numbers(decoded(path, shares(2), USUAL), 20) == [5, 15]


def test_broken_videos_are_named(tmp_path):
    needs_av()
    whole = video(tmp_path / "whole.mp4", 100).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index stood at the end
    stream = video(tmp_path / "stream.avi", 100).read_bytes()
    (tmp_path / "short.avi").write_bytes(stream[: len(stream) // 2])
    (tmp_path / "nothing").mkdir()
    for name, reason in (
        ("empty.mp4", "it is empty"),
        ("noise.mp4", "Invalid data"),
        ("cut.mp4", "Invalid data"),
        ("short.avi", "it ends after|no frames from|Invalid data"),
        ("nothing", "the folder has no pictures"),
        ("absent.mp4", "No such file"),
    ):
        clips = Videos(tmp_path, [name], 4, "clip", USUAL)
        with pytest.raises(
            BrokenInput, match=f"^Video cannot be read: .*{name}: .*({reason})"
        ) as e:
            clips.read(0)
        (said,) = without_prefix([str(e.value)])
        assert said.startswith(str(tmp_path / name))


def test_sound_alone_is_no_video(tmp_path):
    av = needs_av()
    import numpy as np

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(BrokenInput, match="it has no pictures, only sound"):
        decoded(tmp_path / "a.mp4", shares(2), USUAL)


def test_frames_of_animated_pictures_and_of_stills(tmp_path):
    pictures = [trees.draw(k) for k in range(8)]
    for name in ("a.gif", "a.webp", "a.png"):
        pictures[0].save(
            tmp_path / name, save_all=True, append_images=pictures[1:], duration=40, lossless=True
        )
        found = animated(tmp_path / name, shares(4), USUAL)
        assert len(found) == 4
        for picture, number in zip(found, (1, 3, 5, 7), strict=True):
            difference = abs(
                torch.tensor(list(picture.tobytes())).float()
                - torch.tensor(list(pictures[number].tobytes())).float()
            )
            assert difference.mean() < 8, name
    trees.jpeg(tmp_path / "b.jpg", 3)
    assert len(animated(tmp_path / "b.jpg", shares(4), USUAL)) == 1
    (tmp_path / "c.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:200])
    with pytest.raises(BrokenInput, match=r"^Video cannot be read: .*c\.gif"):
        animated(tmp_path / "c.gif", shares(4), USUAL)


def test_all_frames_of_an_animated_picture_are_read_one_by_one(tmp_path, monkeypatch):
    pictures, read, to_rgb = [trees.draw(k) for k in range(4)], [], videos.to_rgb
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=40)
    monkeypatch.setattr(videos, "to_rgb", lambda *of: read.append(1) or to_rgb(*of))
    found = videos.all_pictures(tmp_path / "a.gif")
    assert next(found)[0] == 0.125
    assert len(read) == 1
    assert [place for place, _ in found] == [0.375, 0.625, 0.875]


def test_frames_in_a_folder_stand_in_the_order_of_their_numbers(tmp_path):
    for k in range(12):
        Image.new("RGB", (8, 8), (20 * k, 0, 0)).save(tmp_path / f"f{k}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path.parent / "list").mkdir(exist_ok=True)
    clips = Videos(tmp_path.parent, [tmp_path.name], 6, "clip", USUAL)
    assert [p.getpixel((0, 0))[0] // 20 for p in clips.read(0)] == [1, 3, 5, 7, 9, 11]
    listed = Videos(
        tmp_path.parent, [tmp_path.name], 6, "clip", USUAL, [["f7.png", "f2.png", "f11.png"]]
    )
    assert [p.getpixel((0, 0))[0] // 20 for p in listed.read(0)] == [7, 2, 11]
    assert listed.stamp(0) != clips.stamp(0)
    assert listed.digest(0) != clips.digest(0)
    Image.new("RGB", (9, 8)).save(tmp_path / "f7.png")
    with pytest.raises(BrokenInput, match="its frames are of several sizes"):
        clips.read(0)


def settings(root, **values):
    own = {"task": "captions", "split": "all", "frames": 4, "root": str(root / "v")}
    return VideosData(source="videos", **{**own, **values})


def test_a_list_names_videos_with_or_without_their_endings(tmp_path):
    needs_av()
    for name in ("a.b.mp4", "deep/c.avi"):
        video(tmp_path / "v" / name, 8)
    trees.jpeg(tmp_path / "v" / "d" / "1.jpg", 1)
    rows = ["video,caption", "a.b,one", "a.b.mp4,", "deep/c.mp4,two", "d,three", "a.b,four"]
    (tmp_path / "l.csv").write_text("\n".join(rows))
    with pytest.raises(BrokenInput, match=r"l\.csv:3: a needed cell is empty"):
        open_data(settings(tmp_path, path=str(tmp_path / "l.csv")))
    dataset = open_data(settings(tmp_path, path=str(tmp_path / "l.csv"), broken_rows=1))
    assert dataset.keys == ["a.b", "deep/c.mp4", "d"]
    assert dataset.captions == [["one", "four"], ["two"], ["three"]]
    assert [len(dataset.read(i)) for i in range(3)] == [4, 4, 1]
    assert numbers(dataset.read(0), 8) == [1, 3, 5, 7]
    (tmp_path / "l.json").write_text(json.dumps([{"video": "x", "caption": "y"}]))
    with pytest.raises(BrokenInput, match="1 of 1 videos are missing: x"):
        open_data(settings(tmp_path, path=str(tmp_path / "l.json")))


def test_class_folders_of_videos(tmp_path):
    needs_av()
    for name in ("Apply_Makeup/1.mp4", "Apply_Makeup/2.mp4", "Bowling/1.mp4"):
        video(tmp_path / "v" / name, 4)
    trees.jpeg(tmp_path / "v" / "Bowling" / "frames" / "1.jpg", 1)
    dataset = open_data(settings(tmp_path, task="classification"))
    assert dataset.class_names == ["Apply Makeup", "Bowling"]
    names = [dataset.class_names[label] for label in dataset.labels]
    assert list(zip(dataset.keys, names, strict=True)) == [
        ("Apply_Makeup/1.mp4", "Apply Makeup"), ("Apply_Makeup/2.mp4", "Apply Makeup"),
        ("Bowling/1.mp4", "Bowling"), ("Bowling/frames", "Bowling"),
    ]  # fmt: skip
    assert list_clips(tmp_path / "v") == dataset.keys


def test_a_name_is_looked_for_in_all_folders_if_one_alone_has_it(tmp_path):
    for path in ("m1/0001_a_00.01.2-00.02.3.avi", "m2/x.avi", "m3/x.avi"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert find_clips(tmp_path, ["0001_a_00.01.2-00.02.3"], 0) == ["m1/0001_a_00.01.2-00.02.3.avi"]
    assert find_clips(tmp_path, ["m2/x"], 0) == ["m2/x.avi"]
    assert find_clips(tmp_path, ["m2/x", "x"], 1) == ["m2/x.avi", "x"]
    with pytest.raises(BrokenInput, match="1 of 2 videos are missing: x"):
        find_clips(tmp_path, ["m2/x", "x"], 0)


def test_without_pyav_videos_are_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "v" / "cat").mkdir(parents=True)
    (tmp_path / "v" / "cat" / "a.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match=r'needs the package av.*"radapter\[video\]"'):
        open_data(settings(tmp_path, task="classification"))
