"""What people really have beside class folders: captions in text files, odd tables, other forms."""

import json
import shutil

import pytest
import tiny
import trees

from radapter.data import open_data
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput, UsageError
from radapter.init.checking import unreadable
from radapter.init.found import Spot, Wanted
from radapter.init.tables import table
from radapter.recipe import parse


@pytest.fixture
def begin(begin):
    """With the data section alone."""

    def call(path: str, **options: str):
        recipe, made = begin(path, **options)
        return recipe.data, made

    return call


def pictures(folder, number=12, ending="jpg"):
    return [trees.jpeg(folder / f"{i:03d}.{ending}", i) for i in range(number)]


def all_of(data):
    return open_data(data.model_copy(update={"split": "all"}))


# ---------------------------------------------------------------- captions beside pictures


def test_captions_in_text_files_as_img2dataset_writes_them(begin, tmp_path):
    for part in ("00000", "00001"):
        for path in pictures(tmp_path / "s" / part, 6):
            path.with_suffix(".txt").write_text(f"picture {path.stem} of {part}\n")
            path.with_suffix(".json").write_text("{}")
        (tmp_path / "s" / f"{part}_stats.json").write_text("{}")
    data, made = begin("s")
    assert (data.source, data.task) == ("caption-files", "captions")
    assert all_of(data).captions[7] == ["picture 001 of 00001"]
    assert made.summary["left_out"] == {
        "ending": {
            "count": 2,
            "first": ["00000_stats.json", "00001_stats.json"],
            "endings": {".json": 2},
        }
    }


def test_a_flat_folder_of_pairs(begin, tmp_path):
    for i, path in enumerate(pictures(tmp_path / "s", 8)):
        path.with_suffix(".txt").write_text("" if i == 3 else f"one {i}\ntwo {i}\n")
    (tmp_path / "s" / "005.txt").unlink()
    data, made = begin("s")
    assert len(all_of(data)) == 6
    assert all_of(data).captions[1] == ["one 1", "two 1"]
    assert made.left_out["without caption"] == ["003.jpg", "005.jpg"]


def test_class_folders_with_texts_beside_are_asked_about(begin, tmp_path):
    tiny.draw_shapes(tmp_path / "s", each=4)
    for path in (tmp_path / "s").rglob("*.png"):
        path.with_suffix(".txt").write_text("a shape")
    with pytest.raises(UsageError, match="--task classification.*--task captions"):
        begin("s")
    assert begin("s", task="captions")[0].source == "caption-files"
    assert begin("s", task="classification")[0].source == "folder"
    for path in (tmp_path / "s").rglob("*.txt"):
        path.write_text("0 0.5 0.5 0.1 0.2\n")  # boxes of a detector are no captions
    assert begin("s")[0].source == "folder"


def test_captions_in_folders_of_splits(begin, tmp_path):
    for split in ("train", "val"):
        for path in pictures(tmp_path / "s" / split, 4):
            path.with_suffix(".txt").write_text("words")
    _, made = begin("s")
    recipe = parse(made.text, "s.yaml")
    assert (recipe.data.root, recipe.validation.root) == ("s/train", "s/val")


# ---------------------------------------------------------------- tables


def rows_of(folder, name, *lines):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")


def test_a_table_without_quoting(begin, tmp_path):
    """A caption begins with a quote, a later one ends with one: four rows lie between."""
    names = [path.name for path in pictures(tmp_path / "s", 10)]
    texts = [f"text {i}" for i in range(10)]
    texts[2], texts[6] = '"begins here', 'ends here"'
    lines = [f"{n}\t{t}" for n, t in zip(names, texts, strict=True)]
    rows_of(tmp_path / "s", "a.tsv", "filepath\ttitle", *lines)
    usual = TableData(source="table", path=str(tmp_path / "s" / "a.tsv"), task="captions")
    with pytest.raises(BrokenInput, match=r"a.tsv:4: a quote opens.*line 8.*data.quoting: none"):
        open_data(usual)
    data, made = begin("s")
    assert data.quoting == "none"
    assert [texts for (texts,) in all_of(data).captions] == texts
    assert "quotes are plain characters" in made.text


def test_cells_with_line_breaks_and_broken_rows(tmp_path):
    pictures(tmp_path, 3)
    rows_of(
        tmp_path, "a.csv", "filepath,title", '000.jpg,"two,', 'lines"', '001.jpg,"a" b', "002.jpg,c"
    )
    data = TableData(source="table", path=str(tmp_path / "a.csv"), task="captions")
    with pytest.raises(BrokenInput, match=r"a.csv:4: .*expected after"):
        open_data(data)
    opened = open_data(data.model_copy(update={"broken_rows": 1}))
    assert opened.captions == [["two,\nlines"], ["c"]]
    assert len(opened.left_out["broken row"]) == 1


def test_a_very_long_cell(begin, tmp_path):
    pictures(tmp_path / "s", 8)
    rows_of(tmp_path / "s", "a.csv", "filepath,title", f"000.jpg,{'word ' * 30_000}",
            *(f"00{i}.jpg,text" for i in range(1, 8)))  # fmt: skip
    data, made = begin("s")
    assert len(all_of(data).captions[0][0]) == 149_999
    assert "1 of 8 captions are longer than the 77 tokens" in made.text


def test_captions_longer_than_the_context_are_counted(begin, tmp_path):
    pictures(tmp_path / "s")
    texts = {0: "a dog " * 40, 1: "a photo of " * 24 + "a dog"}  # 80 words, and 74
    rows = [f"{i:03d}.jpg,{texts.get(i, f'a {i}')}" for i in range(12)]
    (tmp_path / "s" / "t.csv").write_text("\n".join(["filepath,caption", *rows]))
    _, made = begin("s")
    assert any(note.startswith("1 of 12 captions are longer") for note in made.summary["notes"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json(begin, tmp_path, name):
    pictures(tmp_path / "s")
    records = [{"file_name": f"{i:03d}.jpg", "text": [f"a {i}", f"b {i}"]} for i in range(12)]
    whole = json.dumps(records) if name == "a.json" else "\n".join(map(json.dumps, records))
    (tmp_path / "s" / name).write_text(whole)
    data, _ = begin("s")
    assert (data.source, data.image_column, data.text_column) == ("table", "file_name", "text")
    assert all_of(data).captions[2] == ["a 2", "b 2"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_image_folder_of_hugging_face(begin, tmp_path, name):
    for split in ("train", "validation", "test"):
        pictures(tmp_path / "s" / split, 6)
        if name.endswith("csv"):
            lines = ["file_name,text", *(f"{i:03d}.jpg,a {i}" for i in range(6))]
        else:
            records = ({"file_name": f"{i:03d}.jpg", "text": f"a {i}"} for i in range(6))
            lines = list(map(json.dumps, records))
        rows_of(tmp_path / "s" / split, name, *lines)
    _, made = begin("s")
    recipe = parse(made.text, "s.yaml")
    assert (recipe.data.path, recipe.validation.path) == (f"s/train/{name}", f"s/validation/{name}")
    assert len(all_of(recipe.validation)) == 6


def test_parquet(begin, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    pictures(tmp_path / "s")
    columns = {"filepath": [f"{i:03d}.jpg" for i in range(12)], "label": [i % 2 for i in range(12)]}
    parquet.write_table(pa.table(columns), tmp_path / "s" / "a.parquet")
    data, _ = begin("s")
    assert (data.source, data.task) == ("table", "classification")
    assert all_of(data).class_names == ["0", "1"]


def test_parquet_with_pictures_in(begin, tmp_path):
    pytest.importorskip("datasets")
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "s" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        stored = [{"bytes": trees.encoded(i, "PNG"), "path": f"{i}.png"} for i in range(12)]
        columns = {"image": stored, "caption": [f"text {i}" for i in range(12)]}
        name = f"{split}-00000-of-00001.parquet"
        parquet.write_table(pa.table(columns), tmp_path / "s" / "data" / name)
    data, _ = begin("s")
    assert (data.source, data.dataset_split, data.image_column) == ("huggingface", "train", "image")
    assert all_of(data).read(3).size == (48, 40)


def test_several_columns_of_captions(begin, tmp_path):
    pictures(tmp_path / "s")
    lines = [f"{i:03d}.jpg,a {i},b {i},{'' if i else 'c'}" for i in range(12)]
    rows_of(tmp_path / "s", "a.csv", "image,caption_1,caption_2,caption_3", *lines)
    data, made = begin("s")
    assert data.text_column == ["caption_1", "caption_2", "caption_3"]
    assert all_of(data).captions[:2] == [["a 0", "b 0", "c"], ["a 1", "b 1"]]
    assert "every column has a caption" in made.text


def test_lists_of_captions_in_cells(begin, tmp_path):
    pictures(tmp_path / "s")
    lines = [f'{i:03d}.jpg,"[""a {i}"", ""b""]"' for i in range(12)]
    rows_of(tmp_path / "s", "a.csv", "filename,raw", *lines)
    data, _ = begin("s")
    assert data.text_lists
    assert all_of(data).captions[3] == ["a 3", "b"]


@pytest.mark.parametrize(
    "lines",
    [
        ["filepath,label", *(f"{i:03d}.jpg,{'cat|dog' if i % 3 else 'cat'}" for i in range(11)),
         "011.jpg,dog|bird"],
        ["filepath,cat,dog", *(f"{i:03d}.jpg,{i % 2},1" for i in range(12))],
    ],
)  # fmt: skip
def test_several_classes_a_picture_are_refused(begin, tmp_path, lines):
    pictures(tmp_path / "s")
    rows_of(tmp_path / "s", "a.csv", *lines)
    with pytest.raises(UsageError, match="one class a picture"):
        begin("s")


def test_kaggles_ids_without_ending(begin, tmp_path):
    pictures(tmp_path / "s" / "train")
    pictures(tmp_path / "s" / "test", 3)
    lines = [f"{i:03d},{'beagle' if i % 2 else 'pug'}" for i in range(12)]
    rows_of(tmp_path / "s", "labels.csv", "id,breed", *lines)
    data, _ = begin("s")
    assert (data.root, data.image_ending, data.image_column) == ("s/train", ".jpg", "id")
    assert all_of(data).class_names == ["beagle", "pug"]
    assert all_of(data).read(0).size == (48, 40)


def test_paths_as_other_systems_write_them(begin, tmp_path):
    paths = pictures(tmp_path / "s" / "my pictures", 8)
    lines = [f"my pictures\\{p.name},text" for p in paths[:4]]
    lines += [f"{p.absolute().as_uri()},text" for p in paths[4:]]
    rows_of(tmp_path / "s", "a.csv", "filepath,title", *lines)
    data, _ = begin("s")
    opened = all_of(data)
    assert [opened.read(i).size for i in range(8)] == [(48, 40)] * 8


def test_a_table_without_a_header(begin, tmp_path):
    pictures(tmp_path / "s")
    (tmp_path / "s" / "classes.txt").write_text("red fox\ncat\n")
    rows_of(tmp_path / "s", "a.txt", *(f"{i:03d}.jpg {i % 2}" for i in range(12)))
    data, made = begin("s/a.txt")
    assert (data.columns, data.delimiter) == (["filepath", "title"], " ")
    assert data.class_names_in == "s/classes.txt"
    opened = all_of(data)
    assert (len(opened), opened.class_names, opened.labels[:2]) == (12, ["red fox", "cat"], [0, 1])
    assert "class 0 is called 'red fox'" in made.text


def test_names_for_class_folders_that_are_ids(begin, tmp_path):
    for k, name in enumerate(("n01440764", "n01443537")):
        for i in range(4):
            trees.jpeg(tmp_path / "s" / name / f"{i}.jpg", 4 * k + i)
    index = {"0": ["n01440764", "tench"], "1": ["n01443537", "gold_fish"]}
    (tmp_path / "s" / "class_index.json").write_text(json.dumps(index))
    data, _ = begin("s")
    assert all_of(data).class_names == ["tench", "gold fish"]
    index.pop("1")
    (tmp_path / "s" / "class_index.json").write_text(json.dumps(index))
    with pytest.raises(BrokenInput, match="no name for class n01443537"):
        all_of(data)


# ---------------------------------------------------------------- what is not enough


def test_too_many_missing_pictures_make_no_recipe(begin, tmp_path):
    pictures(tmp_path / "s", 32)
    lines = [f"{i:03d}.jpg,text {i}" for i in range(332)]
    rows_of(tmp_path / "s", "a.csv", "filepath,title", *lines)
    with pytest.raises(BrokenInput, match="300 of 332 pictures.*are missing: 032.jpg"):
        begin("s")
    rows_of(tmp_path / "s", "a.csv", "filepath,title", *lines[:34])
    data, made = begin("s")
    assert data.broken_images == 2
    assert "Picture is missing: 032.jpg" in made.summary["broken"]


def test_a_limit_is_a_tenth_at_most():
    from radapter.data import Dataset

    def read(index: int):
        if index in (0, 10, 20, 30, 40):  # 8 % of those that are opened
            raise BrokenInput(f"Picture cannot be read: {index}")
        return trees.draw(0)

    keys = [str(i) for i in range(640)]
    _, broken, limit = unreadable(Dataset("x", keys, read))
    assert (len(broken), limit) == (5, 64)


def test_too_many_broken_rows(tmp_path):
    pictures(tmp_path, 10)
    lines = [f"{i:03d}.jpg,{'text' if i > 2 else ''}" for i in range(10)]
    rows_of(tmp_path, "a.csv", "filepath,title", *lines)
    with pytest.raises(BrokenInput, match="3 broken rows beside 7 pictures"):
        table(Spot("a.csv", tmp_path / "a.csv"), Wanted())


def test_pictures_of_one_class(begin, tmp_path):
    pictures(tmp_path / "s")
    rows_of(tmp_path / "s", "a.csv", "filepath,label", *(f"{i:03d}.jpg,cat" for i in range(12)))
    with pytest.raises(BrokenInput, match="of one class, 'cat'"):
        begin("s")
    pictures(tmp_path / "folders" / "cat")
    with pytest.raises(UsageError, match="with one class alone"):
        begin("folders")


def test_a_folder_in_a_folder_is_named(begin, tmp_path):
    tiny.draw_shapes(tmp_path / "archive" / "shapes", each=2)
    with pytest.raises(UsageError, match="name archive/shapes"):
        begin("archive")


def test_archives_are_refused_in_a_sentence(begin, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0000.tar.gz").write_bytes(b"x")
    for path in ("s", "s/0000.tar.gz"):
        with pytest.raises(UsageError, match="is compressed"):
            begin(path)


def test_classes_of_one_name_are_said(begin, tmp_path):
    tiny.draw_shapes(tmp_path / "s", each=4)
    shutil.copytree(tmp_path / "s" / "red_square", tmp_path / "s" / "red square")
    _, made = begin("s")
    assert made.summary["classes"]["number"] == 3
    assert any("red square" in note and "red_square" in note for note in made.summary["notes"])
