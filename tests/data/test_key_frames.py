"""Folders of key frames in the place of videos."""

import json
import os

import numpy as np
import pytest
import trees
from PIL import Image
from video_files import number_of, video

from radapter.data import open_data
from radapter.data.key_frames import LIST, MARK, Settings, by_change, write_key_frames
from radapter.data.sources.videos import VideosData
from radapter.errors import BrokenInput


def needs_av():
    return pytest.importorskip("av")


def read(folder, frames):
    files = sorted(folder.glob("*.jpg"))
    return [number_of(Image.open(file), frames) for file in files]


def test_a_list_of_videos_is_read_from_their_frames(tmp_path):
    needs_av()
    for number, name in enumerate(("a.mp4", "deep/b.c.avi")):
        video(tmp_path / "v" / name, 40 + 10 * number)
    facts = write_key_frames(tmp_path / "v", tmp_path / "f", Settings(frames=5))
    assert facts["videos"] == {"a.mp4": 5, "deep/b.c.avi": 5}
    assert read(tmp_path / "f" / "a", 40) == [4, 12, 20, 28, 36]
    listed = json.loads((tmp_path / "f" / LIST).read_text())
    assert listed == {k: v for k, v in facts.items() if k != "made"}
    (tmp_path / "l.csv").write_text("video,caption\na.mp4,one\ndeep/b.c.avi,two\n")
    own = {"source": "videos", "path": str(tmp_path / "l.csv"), "task": "captions", "split": "all"}
    of_videos, of_frames = (
        open_data(VideosData(root=str(tmp_path / name), frames=5, **own)) for name in "vf"
    )
    assert of_videos.keys == of_frames.keys
    for i, frames in enumerate((40, 50)):
        numbers = [[number_of(p, frames) for p in d.read(i)] for d in (of_videos, of_frames)]
        assert numbers[0] == numbers[1]


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    from radapter.data import key_frames

    needs_av()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        video(tmp_path / "v" / name, 20)
    decoded, done = key_frames.decoded, []

    def killed(path, *more):
        if path.name == "c.mp4":
            raise KeyboardInterrupt
        done.append(path.name)
        return decoded(path, *more)

    monkeypatch.setattr(key_frames, "decoded", killed)
    with pytest.raises(KeyboardInterrupt):
        write_key_frames(tmp_path / "v", tmp_path / "f", Settings(frames=4))
    assert not (tmp_path / "f" / LIST).exists()
    (tmp_path / "f" / ".c.0000.tmp").mkdir()  # what a kill leaves
    monkeypatch.setattr(key_frames, "decoded", decoded)
    facts = write_key_frames(tmp_path / "v", tmp_path / "f", Settings(frames=4))
    assert (facts["made"], len(facts["videos"])) == (3 - len(done), 3)
    assert not list((tmp_path / "f").glob("*.tmp"))
    assert write_key_frames(tmp_path / "v", tmp_path / "f", Settings(frames=4))["made"] == 0
    video(tmp_path / "v" / "b.mp4", 30)  # changed
    assert write_key_frames(tmp_path / "v", tmp_path / "f", Settings(frames=4))["made"] == 1
    assert read(tmp_path / "f" / "b", 30) == [3, 11, 18, 26]
    assert write_key_frames(tmp_path / "v", tmp_path / "f", Settings(frames=3))["made"] == 3
    assert len(read(tmp_path / "f" / "a", 20)) == 3


def test_broken_videos_are_named_and_the_rest_is_written(tmp_path):
    needs_av()
    video(tmp_path / "v" / "a.mp4", 12)
    (tmp_path / "v" / "b.mp4").write_bytes(b"nothing")
    facts = write_key_frames(tmp_path / "v", tmp_path / "f", Settings())
    (said,) = facts["broken"]
    assert said.startswith(f"Video cannot be read: {tmp_path / 'v' / 'b.mp4'}: ")
    assert list(facts["videos"]) == ["a.mp4"]
    assert not (tmp_path / "f" / "b").exists()
    (tmp_path / "v" / "a.mp4").unlink()
    with pytest.raises(BrokenInput, match="None of the 1 videos in .* can be read"):
        write_key_frames(tmp_path / "v", tmp_path / "g", Settings())
    with pytest.raises(BrokenInput, match="No videos in"):
        write_key_frames(tmp_path / "g", tmp_path / "h", Settings())


def test_two_videos_of_one_name_are_refused(tmp_path):
    for name in ("a.gif", "a.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(BrokenInput, match="several videos called a"):
        write_key_frames(tmp_path, tmp_path / "f", Settings())


def test_by_change_still_parts_give_few_frames(tmp_path):
    """NumPy: the quantiles of the summed change."""
    levels = [0] * 50 + list(range(0, 250, 25)) + [250] * 40
    pictures = [Image.new("RGB", (32, 24), (v, v, v)) for v in levels]
    places = [(k + 0.5) / len(levels) for k in range(len(levels))]
    found = by_change(iter(zip(places, pictures, strict=True)), 4)
    change = np.cumsum(np.abs(np.diff(levels, prepend=levels[0])))
    wanted = [places[int(np.argmax(change >= q))] for q in change[-1] * np.array([1, 3, 5, 7]) / 8]
    assert found == wanted
    assert all(0.5 < place < 0.62 for place in found)
    still = [Image.new("RGB", (8, 8), "red")] * 9
    assert by_change(iter(zip(places, still, strict=False)), 2) == [0.25, 0.75]


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_frames_by_change_of_files(ending, tmp_path):
    shown = [0] * 20 + [1, 2, 3, 4, 5, 6, 7] + [7] * 20
    if ending == ".gif":
        pictures = [trees.draw(9 * n) for n in shown]
        pictures[0].save(
            tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[40] * 47
        )
    else:
        av = needs_av()
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for n in shown:
                pixels = np.full((48, 64, 3), 20 + 30 * n, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    write_key_frames(tmp_path, tmp_path / "f", Settings(frames=7, by="change", side=24))
    files = sorted((tmp_path / "f" / "a").glob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == 7 if ending == ".mp4" else len(files) > 2
    assert min(Image.open(files[0]).size) == 24
    if ending == ".mp4":
        levels = [np.asarray(Image.open(file).convert("L")).mean() for file in files]
        assert np.allclose(np.diff(levels), 30, atol=6)


def test_what_was_made_says_of_what(tmp_path):
    pictures = [trees.draw(k) for k in range(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    write_key_frames(tmp_path, tmp_path / "f", Settings(frames=2))
    mark = json.loads((tmp_path / "f" / "a" / MARK).read_text())
    assert mark["stamp"] == [
        os.stat(tmp_path / "a.gif").st_size,
        os.stat(tmp_path / "a.gif").st_mtime_ns,
    ]
    assert (mark["frames"], mark["by"]) == (2, "uniform")
