"""Clips of one's own: class folders and tables of them, and how they are told from pictures."""

import json
import sys

import pytest
import trees
from video_files import animated, video

from radapter.data import key_frames, open_data
from radapter.data.sources.videos import VideosData
from radapter.errors import BrokenInput, MissingDependency, UsageError
from radapter.evaluation.own_data import suite_of
from radapter.init.splits import Doubt
from radapter.init.text import size_of


def clips(root, number=6, endings=("gif", "webp"), classes=("falling_down", "rising")):
    """Class folders with so many clips each."""
    return [
        animated(root / name / f"{i}.{endings[i % len(endings)]}", 50 * c + i)
        for c, name in enumerate(classes)
        for i in range(number)
    ]


def all_of(data):
    return open_data(data.model_copy(update={"split": "all"}))


def names_of(data):
    return all_of(data).keys


# ---------------------------------------------------------------- class folders


def test_class_folders_of_animated_pictures(begin, tmp_path):
    clips(tmp_path / "v")
    recipe, made = begin("v")
    data = recipe.data
    assert (data.source, data.root, data.frames) == ("videos", "v", 12)
    assert 0 < data.hold_out < 1
    assert recipe.method.name == "r-adapter"
    assert made.summary["items"] == "clips"
    assert made.summary["classes"]["smallest"] == ("rising", 6)
    assert "# 12 clips (class folders of videos): 2 classes" in made.text
    assert "picture" not in made.text.replace("for pictures", "").replace("few pictures", "")
    assert len(names_of(data)) == 12


def test_class_folders_of_videos_in_splits(begin, tmp_path):
    for split, number in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("falling", "rising"):
            for i in range(number):
                video(tmp_path / "v" / split / name / f"{split}{i}.mp4", 4 + i)
    recipe, made = begin("v")
    assert (recipe.data.source, recipe.data.root) == ("videos", "v/train")
    assert (recipe.validation.source, recipe.validation.root) == ("videos", "v/val")
    assert len(names_of(recipe.validation)) == 4
    assert any("radapter eval --data v/test" in note for note in made.summary["notes"])


def test_splits_in_class_folders_and_lists_of_splits_are_asked_about(begin, tmp_path):
    for split in ("train", "test"):
        for c, name in enumerate(("falling", "rising")):
            for i in range(2):
                animated(tmp_path / "v" / name / split / f"{i}.gif", 10 * c + i)
    with pytest.raises(Doubt, match="the clips of .* are of several splits"):
        begin("v")
    assert begin("v", split="none")[0].data.source == "videos"
    clips(tmp_path / "l")
    (tmp_path / "l" / "testlist01.txt").write_text("rising/1.webp\n")
    with pytest.raises(Doubt, match=r"lists called like splits \(testlist01.txt\).*--split none"):
        begin("l")
    assert begin("l", split="none")[0].data.source == "videos"


def test_what_most_files_are_decides(begin, tmp_path):
    clips(tmp_path / "v")
    for i in range(6):
        trees.jpeg(tmp_path / "v" / "rising" / f"{i}.jpg", i)
    recipe, made = begin("v")
    assert recipe.data.source == "videos"
    assert made.left_out["ending"] == [f"rising/{i}.jpg" for i in range(6)]
    for name in ("rising", "falling_down"):
        for i in range(20):
            trees.jpeg(tmp_path / "v" / name / f"p{i}.jpg", i)
    assert begin("v")[0].data.source == "folder"


def test_pictures_that_do_not_move_stay_pictures(begin, tmp_path):
    for name in ("falling", "rising"):
        for i in range(4):
            animated(tmp_path / "v" / name / f"{i}.webp", i + 10 * len(name), frames=1)
    assert begin("v")[0].data.source == "folder"
    clips(tmp_path / "w", 8)
    animated(tmp_path / "w" / "rising" / "preview.webp", 99, frames=1)
    recipe, made = begin("w")
    assert recipe.data.source == "videos"
    assert any("do not move: 1 (rising/preview.webp)" in n for n in made.summary["notes"])


def test_folders_of_frames_are_clips_if_radapter_wrote_them(begin, tmp_path):
    clips(tmp_path / "v", endings=("gif",))
    key_frames.write_key_frames(tmp_path / "v", tmp_path / "frames", key_frames.Settings(frames=2))
    recipe, _ = begin("frames")
    assert recipe.data.source == "videos"
    assert names_of(recipe.data)[:2] == ["falling_down/0", "falling_down/1"]
    for mark in (tmp_path / "frames").rglob(key_frames.MARK):
        mark.unlink()
    assert begin("frames")[0].data.source == "folder"  # may as well be pictures in folders


def test_classes_called_by_numbers_get_their_names(begin, tmp_path):
    clips(tmp_path / "v", classes=("0", "1"))
    (tmp_path / "v" / "classes.txt").write_text("falling\nrising\n")
    recipe, _ = begin("v")
    assert recipe.data.class_names_in == "v/classes.txt"
    assert open_data(recipe.data).class_names == ["falling", "rising"]


def test_too_few_classes_are_said_with_what_to_type(begin, tmp_path):
    for i in range(3):
        animated(tmp_path / "flat" / f"{i}.gif", i)
    with pytest.raises(UsageError, match="in no class folders.*video and caption: radapter init"):
        begin("flat")
    clips(tmp_path / "one", classes=("rising",))
    with pytest.raises(UsageError, match="videos in 1 folder: with one class alone"):
        begin("one")
    clips(tmp_path / "deep" / "set")
    with pytest.raises(UsageError, match="name deep/set"):
        begin("deep")
    clips(tmp_path / "two")
    with pytest.raises(UsageError, match="--pictures goes with a table"):
        begin("two", pictures="one")


# ---------------------------------------------------------------- tables


def write_rows(path, rows):
    """In the form that the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(rows[0])
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        lines = [between.join(columns), *(between.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def listed(tmp_path):
    """Eight animated pictures in `v`, and the rows that name them."""
    paths = [animated(tmp_path / "v" / f"c{i}.gif", i) for i in range(8)]
    return [{"video": p.name, "caption": f"thing {i}"} for i, p in enumerate(paths)]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.parquet"])
def test_a_table_with_its_videos_elsewhere(begin, listed, tmp_path, name):
    write_rows(tmp_path / "lists" / name, listed)
    recipe, made = begin(f"lists/{name}", pictures="v")
    data = recipe.data
    assert (data.source, data.root, data.path) == ("videos", "v", f"lists/{name}")
    assert (data.video_column, data.text_column, data.task) == ("video", "caption", "captions")
    assert "8 clips (a table of videos): 8 captions" in made.text
    assert recipe.alpha == 0.8
    dataset = all_of(data)
    assert dataset.captions[3] == ["thing 3"]
    assert len(dataset.read(3)) == 4


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"video_id": f"c{i}", "sentence": f"s {i}"} for i in range(8)], ("video_id", "sentence")),
        ([{"file": f"c{i}.gif", "label": f"k{i % 2}"} for i in range(8)], ("file", "label")),
        ([{"id": i, "clip": f"c{i}", "title": f"s {i}"} for i in range(8)], ("clip", "title")),
    ],
)  # fmt: skip
def test_the_columns_of_a_table(begin, listed, tmp_path, rows, columns):
    write_rows(tmp_path / "t.csv", rows)
    data = begin("t.csv")[0].data
    assert (data.source, data.root) == ("videos", "v")
    assert (data.video_column, data.text_column) == columns
    assert data.task == ("classification" if "label" in columns else "captions")
    assert len(names_of(data)) == 8


def test_a_table_of_mp4_by_any_column_and_without_a_header(begin, tmp_path):
    for i in range(6):
        video(tmp_path / "v" / f"{i}.mp4", 4)
    (tmp_path / "v" / "list.csv").write_text(
        "".join(f"{i}.mp4,thing {i} moves\n" for i in range(6))
    )
    data = begin("v")[0].data
    assert (data.source, data.root, data.video_column) == ("videos", "v", "filepath")
    assert all_of(data).captions[2] == ["thing 2 moves"]


def test_tables_of_pictures_stay_so(begin, tmp_path):
    """Also with pictures that do not move, and with the video that a picture was taken of."""
    rows = []
    for i in range(6):
        animated(tmp_path / "v" / f"{i}.webp", i, frames=1)
        rows.append({"image": f"{i}.webp", "caption": f"text {i}"})
    write_rows(tmp_path / "v" / "a.csv", rows)
    assert begin("v")[0].data.source == "table"
    for i, row in enumerate(rows):
        trees.jpeg(tmp_path / "w" / f"{i}.jpg", i)
        row |= {"image": f"{i}.jpg", "video": f"{i}.mp4"}
    write_rows(tmp_path / "w" / "a.csv", rows)
    recipe, made = begin("w")
    assert recipe.data.source == "table"
    assert any("for the videos of 'video'" in note for note in made.summary["notes"])


def test_splits_of_a_table(begin, listed, tmp_path):
    for i, row in enumerate(listed):
        row["split"] = ("train", "train", "val", "test")[i % 4]
    write_rows(tmp_path / "t.csv", listed)
    recipe, made = begin("t.csv")
    assert names_of(recipe.data) == ["c0.gif", "c1.gif", "c4.gif", "c5.gif"]
    assert names_of(recipe.validation) == ["c2.gif", "c6.gif"]
    assert "neither trained on nor used for alpha: test" in made.text
    with pytest.raises(UsageError, match="a folder or table of its own"):
        suite_of("t.csv", ["{}"])


def test_tables_of_splits(begin, listed, tmp_path):
    for name, rows in (("train", listed[:4]), ("val", listed[4:6]), ("test", listed[6:])):
        write_rows(tmp_path / "v" / f"{name}.csv", rows)
    recipe, _ = begin("v")
    assert (recipe.data.path, recipe.validation.path) == ("v/train.csv", "v/val.csv")
    assert names_of(recipe.validation) == ["c4.gif", "c5.gif"]


def test_captions_in_several_columns_and_in_lists(begin, listed, tmp_path):
    for row in listed:
        row["caption2"] = row["caption"] + " again"
    write_rows(tmp_path / "t.csv", listed)
    data = begin("t.csv")[0].data
    assert data.text_column == ["caption", "caption2"]
    assert all_of(data).captions[0] == ["thing 0", "thing 0 again"]
    rows = [f'{row["video"]},"[""one"", ""two""]"' for row in listed]
    (tmp_path / "l.csv").write_text("\n".join(["video,captions", *rows]))
    data = begin("l.csv")[0].data
    assert data.text_lists
    assert all_of(data).captions[0] == ["one", "two"]
    kept = data.listing().at("kept.jsonl")
    assert (kept.text_lists, kept.path) == (False, "kept.jsonl")


def test_videos_in_folders_below_are_found_by_their_names(begin, tmp_path):
    rows = []
    for i in range(6):
        animated(tmp_path / "v" / f"part{i % 2}" / "more" / f"c{i}.gif", i)
        rows.append({"video": f"c{i}", "caption": f"text {i}"})
    write_rows(tmp_path / "lists" / "t.csv", rows)
    with pytest.raises(BrokenInput, match=r"None of 6 videos .*\(c0, .*--pictures"):
        begin("lists/t.csv")
    assert names_of(begin("lists/t.csv", pictures="v")[0].data) == [f"c{i}" for i in range(6)]


# ---------------------------------------------------------------- what cannot be read


def test_missing_and_broken_videos_are_named_and_counted(begin, tmp_path):
    rows = []
    for i in range(40):
        animated(tmp_path / "v" / f"c{i}.gif", i)
        rows.append({"video": f"c{i}.gif", "caption": f"text {i}"})
    (tmp_path / "v" / "c7.gif").write_bytes(b"no clip")
    (tmp_path / "v" / "c9.gif").unlink()
    write_rows(tmp_path / "t.csv", rows)
    recipe, made = begin("t.csv")
    missing, broken = made.summary["broken"]
    assert missing == "Video is missing: c9.gif"
    assert broken.startswith("Video cannot be read: v/c7.gif: ")
    assert recipe.data.broken_images == 2
    assert "# all that are broken, such as c9.gif" in made.text
    for i in range(10, 20):
        (tmp_path / "v" / f"c{i}.gif").unlink()
    with pytest.raises(
        BrokenInput, match="11 of 40 clips of videos t.csv are missing: c9.gif, c10"
    ):
        begin("t.csv")


def test_broken_videos_in_class_folders(begin, tmp_path):
    paths = clips(tmp_path / "v")
    paths[0].write_bytes(b"")
    recipe, made = begin("v")
    assert recipe.data.broken_images == 1
    assert made.summary["broken"][0].startswith("Video cannot be read: v/falling_down/0.gif: ")
    assert not made.summary["notes"]
    for path in paths:
        path.write_bytes(b"")
    for path in paths:
        path.with_suffix(".mp4").write_bytes(b"")
        path.unlink()
    pytest.importorskip("av")
    with pytest.raises(BrokenInput, match="None of 12 clips of .* can be read: .* it is empty"):
        begin("v")


def test_without_pyav_one_message_says_what_to_type(begin, tmp_path, monkeypatch):
    for name in ("falling", "rising"):
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / f"{name}.mp4").touch()
    rows = [{"video": name, "text": name} for name in ("falling", "rising")]
    write_rows(tmp_path / "t.csv", rows)  # without endings: what lies there says that it is a video
    monkeypatch.setitem(sys.modules, "av", None)
    said = (
        "Reading the videos of {} needs the package av, which is not installed. "
        'Type first: pip install "radapter[video]"'
    )
    for path in ("v", "t.csv"):
        for command in (begin, lambda path: suite_of(path, ["{}"])):
            with pytest.raises(MissingDependency) as caught:
                command(path)
            assert str(caught.value) == said.format(path)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs"), [(15, 4, 50), (60, 16, 50), (9_000, 128, 43), (180_000, 128, 5)]
)
def test_the_size_of_training_on_clips(pairs, batch, epochs):
    size = size_of(pairs, "clips")
    assert (size.batch, size.epochs) == (batch, epochs)


def test_batches_of_clips_are_encoded_in_parts(begin, tmp_path):
    clips(tmp_path / "v", 45, endings=("gif",))
    recipe, _ = begin("v")
    assert (recipe.optimisation.batch_size, recipe.optimisation.micro_batch) == (32, 16)
    clips(tmp_path / "w")
    assert begin("w")[0].optimisation.micro_batch is None


def test_a_split_needs_its_column():
    with pytest.raises(ValueError, match="split_column and dataset_split go together"):
        VideosData(source="videos", root="v", path="l.csv", dataset_split="train")
