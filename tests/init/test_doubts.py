"""Where there are two readings init asks: places of pictures, columns, folders, --task, numbers."""

import tarfile

import pytest
import tiny
import trees

from radapter.data import open_data
from radapter.errors import UsageError
from radapter.init import look, start
from radapter.init.splits import Doubt, is_plain, like_splits, split_of_name
from radapter.recipe import parse


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADAPTER_DATA", "")
    return tmp_path


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def numbered(*folders, number=6):
    for k, folder in enumerate(folders):
        for i in range(1, number + 1):
            trees.jpeg(folder / f"{i}.jpg", i + number * k)


def labels(path, header="id,label", ending="", number=6):
    return write(path, header, *(f"{i}{ending},{'cat' if i % 2 else 'dog'}"
                                 for i in range(1, number + 1)))  # fmt: skip


# ---------------------------------------------------------------- where a table's pictures are


@pytest.mark.parametrize("fewer", [False, True])
def test_a_table_of_numbers_takes_the_folder_of_its_split(here, fewer):
    numbered(here / "s/train", here / "s/test")
    labels(here / "s/trainLabels.csv")
    if fewer:  # one has got lost; the test folder has more of the names
        (here / "s/train/3.jpg").unlink()
    assert look("s").data["root"] == "s/train"


def test_tables_of_splits_beside_folders_of_splits(here):
    numbered(*(here / "s" / name for name in ("train", "val", "test")))
    for name in ("train", "val", "test"):
        labels(here / f"s/{name}.csv", "image,label", ".jpg")
    found = look("s")
    assert (found.data["root"], found.validation["root"]) == ("s/train", "s/val")
    assert look("s/test.csv").data["root"] == "s/test"


@pytest.mark.parametrize("folders", [("train", "test"), ("images", "masks"), ("images", "test")])
def test_pictures_of_one_name_in_several_places_are_asked_for(here, folders):
    numbered(*(here / "s" / name for name in folders))
    labels(here / "s/labels.csv")
    with pytest.raises(Doubt, match=f"--pictures s/{folders[0]}"):
        look("s")
    assert look("s", pictures=f"s/{folders[0]}").data["root"] == f"s/{folders[0]}"


def test_a_table_of_a_split_whose_pictures_lie_in_another_ones_folder(here):
    numbered(here / "s/test")
    labels(here / "s/train.csv")
    with pytest.raises(Doubt, match="s/test"):
        look("s")


# ---------------------------------------------------------------- columns that may say a split


def with_column(here, column, values):
    numbered(here / "s/images")
    rows = [f"{i}.jpg,{'cat' if i % 2 else 'dog'},{v}" for i, v in enumerate(values, 1)]
    write(here / "s/list.csv", f"image,label,{column}", *rows)


@pytest.mark.parametrize("column", ["partition", "split", "Set"])
def test_numbers_in_a_column_of_splits(here, column):
    with_column(here, column, [0, 0, 0, 0, 1, 2])
    with pytest.raises(Doubt, match="it is unclear which splits 0, 1, 2 are"):
        look("s")
    found = look("s", split="0")
    assert (found.data["split_column"], found.data["dataset_split"]) == (column, "0")
    assert "split_column" not in look("s", split="none").data


def test_splits_beside_others_in_any_column(here):
    with_column(here, "origin", ["train", "train", "train", "train", "test", "extra"])
    with pytest.raises(Doubt, match="beside others"):
        look("s")
    assert look("s", split="train").data["dataset_split"] == "train"


def test_a_column_of_numbers_that_says_no_split(here):
    with_column(here, "width", [0, 0, 0, 0, 1, 2])
    assert "split_column" not in look("s").data


# ---------------------------------------------------------------- names of folders


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("traindir train_directory imagesTr labels_tr trains", "train"),
        ("valdir vals", "validation"),
        ("tests testdir imagesTs", "test"),
        ("tr ts cat_tr strains", None),
    ],
)
def test_more_names_of_splits(names, split):
    assert {n: split_of_name(n) for n in names.split()} == dict.fromkeys(names.split(), split)
    assert all(is_plain(name) is bool(split) for name in names.split())


def test_names_that_are_like_splits():
    names = ["xtrain", "valley", "contest", "cat", "Test tube"]
    assert list(like_splits(names)) == ["xtrain", "valley", "contest", "Test tube"]


@pytest.mark.parametrize("names", [("xtrain", "xtest"), ("trainsmall", "more")])
def test_folders_like_splits_are_asked_for(here, names):
    for name in names:
        tiny.draw_shapes(here / "s" / name, each=2)
    with pytest.raises(Doubt, match=f"--split {names[0]}"):
        look("s")
    assert look("s", split=names[0]).data["root"] == f"s/{names[0]}"
    assert look("s", split="none").data["root"] == "s"


def test_one_class_that_begins_like_a_split_is_a_class(here):
    numbered(here / "s/valley", here / "s/mountain")
    assert look("s").what == "class folders"


def test_two_lists_of_one_split(here):
    tiny.draw_shapes(here / "s", each=2)
    for folder in ("a", "b"):
        write(here / "s" / folder / "train.txt", "red_square/00.png")
    with pytest.raises(Doubt, match=r"a/train\.txt and b/train\.txt"):
        look("s")


# ---------------------------------------------------------------- the task that was asked for


def test_class_folders_have_no_captions(here):
    tiny.draw_shapes(here / "s", each=2)
    with pytest.raises(UsageError, match="--task captions"):
        look("s", task="captions")


def test_captions_are_no_classes(here):
    numbered(here / "s")
    write(here / "s/a.csv", "image,caption", *(f"{i}.jpg,picture {i}" for i in range(1, 7)))
    with pytest.raises(UsageError, match="no column that is known for classes"):
        look("s", task="classification")


def test_files_of_captions_and_shards_have_no_classes(here):
    trees.flickr30k(here / "f")
    with pytest.raises(UsageError, match="with no classes"):
        look("f", task="classification")


# ---------------------------------------------------------------- numbers and names


@pytest.mark.parametrize(("names", "first"), [(5, "n0"), (4, None)])
def test_names_for_classes_from_1_on(here, names, first):
    for k in range(1, 6):
        numbered(here / f"s/{k}", number=4)
    write(here / "s/classes.txt", *(f"n{i}" for i in range(names)))
    found = look("s")
    notes = " ".join(found.notes)
    if first:
        assert found.data["class_names_in"] == "s/classes.txt"
        assert f"class 1 is called '{first}'" in notes
    else:
        assert "class_names_in" not in found.data
        assert "not taken from" in notes


def test_one_name_more_than_classes_is_asked_about(here):
    for k in range(1, 6):
        numbered(here / f"s/{k}", number=4)
    write(here / "s/classes.txt", *(f"n{i}" for i in range(6)))
    with pytest.raises(Doubt, match="may be that of class 0 or of class 1"):
        look("s")


def test_a_validation_table_has_a_header_of_its_own(here):
    numbered(here / "s", number=12)
    write(here / "s/train.csv", *(f"{i}.jpg,a thing {i}" for i in range(1, 9)))
    write(here / "s/val.csv", "filepath,title", *(f"{i}.jpg,a thing {i}" for i in range(9, 13)))
    recipe = parse(start("s").text, "s.yaml")
    assert len(open_data(recipe.data.model_copy(update={"split": "all"}))) == 8
    assert open_data(recipe.validation).keys == [f"{i}.jpg" for i in range(9, 13)]


def test_folders_of_numbers_with_few_captions_are_asked_about(here):
    numbered(here / "s/00000", here / "s/00001")
    for i in range(1, 5):
        write(here / f"s/00000/{i}.txt", f"a thing {i}")
    with pytest.raises(Doubt, match="folders called by numbers .* texts beside some"):
        look("s")
    assert look("s", task="classification").data["source"] == "folder"
    for i in range(1, 7):
        write(here / f"s/00000/{i}.txt", f"a thing {i}")
    assert look("s").data["source"] == "caption-files"  # half of them


def test_an_archive_beside_what_was_unpacked_from_it(here):
    numbered(here / "s/cat", here / "s/dog")
    with tarfile.open(here / "s/pictures.tar", "w") as archive:
        archive.add(here / "s/cat/1.jpg", "cat/1.jpg")
    assert look("s").data["source"] == "folder"
