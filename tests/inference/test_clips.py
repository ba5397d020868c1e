"""Features of videos: one each, or one for each piece; found again by what is said of them."""

import pytest
import torch
import trees
from video_files import number_of, video

from radapter.data.clip_pieces import name_and_span, open_clips
from radapter.errors import BrokenInput
from radapter.inference import embed, open_model, search
from radapter.inference.features import names_of, read_facts
from radapter.inference.searching import picture_path, when
from radapter.models.frames import mean_of_frames


@pytest.fixture(scope="module")
def model(tiny_folder):
    return open_model(tiny_folder)


def animation(path, first, number=6):
    frames = [trees.draw(first + k) for k in range(number)]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)


@pytest.fixture
def clips(tmp_path):
    root = tmp_path / "clips"
    animation(root / "a.gif", 0)
    animation(root / "deep" / "b.webp", 8)
    for k in range(3):
        trees.jpeg(root / "c" / f"{k}.jpg", 20 + k)
    (root / "d.gif").write_bytes(b"broken")
    return root


def test_a_feature_for_each_clip(model, clips, tmp_path):
    out = tmp_path / "f.safetensors"
    found = open_clips(clips, frames=4)
    facts, messages = embed(model, found, out)
    assert (facts["count"], facts["skipped"], len(messages)) == (3, 1, 1)
    assert facts["reading"]["frames"] == "4"
    names = names_of(out, [0, 1, 2])
    assert names == ["a.gif", "c", "deep/b.webp"]
    rows = []
    for name in names:
        frames = found.read(found.keys.index(name))
        pixels = torch.stack([model.preprocess(frame) for frame in frames])
        rows.append(mean_of_frames(model.runtime.encode_image, pixels[None])[0])
    for name, row in zip(names, rows, strict=True):
        (best, cosine), *_ = search(out, row, 1)
        assert best == name
        assert cosine == pytest.approx(1, abs=1e-5)
    assert picture_path(out, "deep/b.webp").endswith("clips/deep/b.webp")
    animation(clips / "a.gif", 3)  # changed: encoded again; the others are kept
    facts, _ = embed(model, open_clips(clips, frames=4), out)
    assert (facts["count"], facts["kept"]) == (3, 2)
    with pytest.raises(BrokenInput, match="another way of reading"):
        embed(model, open_clips(clips, frames=5), out)


def test_pieces_of_a_long_video_say_when_they_are(model, tmp_path):
    video(tmp_path / "v" / "long.mp4", 200)  # 20 seconds
    video(tmp_path / "v" / "short.mp4", 20)
    found = open_clips(tmp_path / "v", frames=2, window=5.0)
    assert found.keys == [*(f"long.mp4#t={k},{k + 5}" for k in (0, 5, 10, 15)), "short.mp4"]
    numbers = [number_of(frame, 200) for frame in found.read(2)]
    assert all(abs(n - wanted) <= 5 for n, wanted in zip(numbers, (112, 137), strict=True))
    facts, _ = embed(model, found, tmp_path / "f.safetensors")
    assert facts["count"] == 5
    assert read_facts(tmp_path / "f.safetensors")["reading"]["window"] == "5 s"
    assert when("long.mp4#t=65,75.5") == "1:05 to 1:15"
    assert when("short.mp4") == ""
    assert name_and_span("a#t=1.mp4") == ("a#t=1.mp4", None)
    path = picture_path(tmp_path / "f.safetensors", "long.mp4#t=5,10")
    assert path.endswith("v/long.mp4")


def test_a_video_without_a_length_is_named_and_counted(model, tmp_path):
    video(tmp_path / "v" / "good.mp4", 20)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"no video at all")
    found = open_clips(tmp_path / "v", frames=2, window=1.0)
    assert found.keys == ["broken.mp4", *(f"good.mp4#t={k},{k + 1}" for k in (0, 1))]
    facts, messages = embed(model, found, tmp_path / "f.safetensors")
    assert (facts["count"], facts["skipped"]) == (2, 1)
    assert "broken.mp4" in messages[0]
    assert facts["left_out"]["broken"]["count"] == 1


def test_folders_without_clips_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BrokenInput, match="No videos, animated pictures or folders of frames in"):
        open_clips(tmp_path)
    with pytest.raises(BrokenInput, match="No such folder"):
        open_clips(tmp_path / "absent")
