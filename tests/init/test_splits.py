"""init never trains on test data: splits are recognised in every form, and doubts are asked."""

import shutil

import pytest
import tiny
import trees

from radapter.data import open_data
from radapter.init.splits import Doubt, check_unmixed, is_plain, split_of_name


@pytest.fixture
def begin(begin):
    """The recipe alone."""
    return lambda path, **options: begin(path, **options)[0]


def keys_of(data):
    return open_data(data.model_copy(update={"split": "all"})).keys


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (
            "train training Training train_set trainset train2017 flowers-train trn trainval",
            "train",
        ),
        ("training_data train_val TrainImages cc3m-train-0001.tar train-00000-of-00001", "train"),
        ("val valid validation dev valid_set val2014 validation-images", "validation"),
        ("test testing test1 TestImages eval test_data my_test_pictures held_out_test", "test"),
        ("tested contest latest trained valley devices 00000 n01440764 evaluate restval", None),
    ],
)
def test_the_split_that_a_name_means(names, split):
    assert {name: split_of_name(name) for name in names.split()} == dict.fromkeys(
        names.split(), split
    )


def test_names_that_say_more_than_a_split():
    assert [is_plain(name) for name in ("test", "test_set", "Test Images", "train-2")] == [True] * 4
    assert [is_plain(name) for name in ("test tube", "bullet train", "cat")] == [False] * 3


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("training", "validation", "testing"),
        ("train_set", "val_set", "test_set"),
        ("training_data", "valid_data", "test_data"),
        ("train2017", "dev", "eval"),
    ],
)
def test_folders_of_splits(begin, tmp_path, train, validation, test):
    for name, each in ((train, 8), (validation, 3), (test, 2)):
        tiny.draw_shapes(tmp_path / "s" / name, each=each)
    recipe = begin("s")
    assert (recipe.data.root, recipe.validation.root) == (f"s/{train}", f"s/{validation}")
    assert len(keys_of(recipe.data)) == 24
    assert recipe.data.hold_out == 0


def test_without_a_validation_split_some_of_training_is_held_out(begin, tmp_path):
    for name in ("train", "test"):
        tiny.draw_shapes(tmp_path / "s" / name)
    recipe = begin("s")
    assert (recipe.data.root, recipe.validation) == ("s/train", None)
    assert recipe.data.hold_out > 0


def test_an_extra_folder_beside_splits_is_asked_about(begin, tmp_path):
    for name in ("train", "val", "test", "extra"):
        tiny.draw_shapes(tmp_path / "s" / name, each=4)
    with pytest.raises(Doubt, match=r"\(train, val, test\) beside others \(extra\).*--split train"):
        begin("s")
    recipe = begin("s", split="train")
    assert (recipe.data.root, recipe.validation.root) == ("s/train", "s/val")
    assert begin("s", split="none").data.root == "s"  # the user says that they are classes


def test_a_class_called_like_a_split_inside_of_one(begin, tmp_path):
    for name in ("train", "val"):
        tiny.draw_shapes(tmp_path / "s" / name, each=4)
        shutil.move(tmp_path / "s" / name / "red_square", tmp_path / "s" / name / "test tube")
    with pytest.raises(Doubt, match="test tube"):
        begin("s")
    assert begin("s", split="train").data.root == "s/train"


@pytest.mark.parametrize("names", [("test",), ("val", "test"), ("train1", "train2", "test")])
def test_no_split_for_training_is_plain(begin, tmp_path, names):
    for name in names:
        tiny.draw_shapes(tmp_path / "s" / name, each=2)
    with pytest.raises(Doubt):
        begin("s")


def test_splits_in_the_class_folders(begin, tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        for k, name in enumerate(("red fox", "cat")):
            for i in range(4):
                trees.jpeg(tmp_path / "s" / name / split / f"{i}.jpg", 8 * number + 2 * i + k)
    recipe = begin("s")
    assert (recipe.data.root, recipe.data.dataset_split) == ("s", "train")
    assert keys_of(recipe.data)[0] == "cat/train/0.jpg"
    assert len(keys_of(recipe.data)) == len(keys_of(recipe.validation)) == 8
    assert not any("test" in key or "val" in key for key in keys_of(recipe.data))
    assert open_data(recipe.data).class_names == ["cat", "red fox"]
    trees.jpeg(tmp_path / "s" / "cat" / "9.jpg", 9)
    with pytest.raises(Doubt, match="pictures right in cat"):
        begin("s")
    assert len(keys_of(begin("s", split="none").data)) == 25
    shutil.rmtree(tmp_path / "s" / "cat" / "train")
    with pytest.raises(
        Exception, match="a folder train in some classes and none in 1, such as cat"
    ):
        begin("s", split="train")


def test_splits_deep_in_the_paths_are_not_mixed():
    check_unmixed(["a/1.jpg", "test tube/2.jpg", "testimony.jpg"], "x")
    check_unmixed(["train_1.jpg", "train_2.jpg"], "x")
    check_unmixed(["a/val 1.jpg", *(f"a/{i}.jpg" for i in range(20))], "x")
    for keys in (
        ["a/b/train/1.jpg", "a/b/test/2.jpg"],
        ["a/1.jpg", "a/testing/2.jpg"],
        ["a/train_1.jpg", "b/test_1.jpg"],
        ["ILSVRC2012_train_1.jpg", "ILSVRC2012_val_1.jpg"],
    ):
        with pytest.raises(Doubt, match="--split none"):
            check_unmixed(keys, "x")


def rows(tmp_path, name, header, line, splits, each=6):
    """A table with `each` rows of every split."""
    lines = [header]
    for k, split in enumerate(splits):
        for i in range(each):
            trees.jpeg(tmp_path / "s" / f"{k}{i}.jpg", 6 * k + i)
            lines.append(line.format(p=f"{k}{i}.jpg", i=i, s=split))
    (tmp_path / "s" / name).write_text("\n".join(lines) + "\n")


def test_a_column_says_the_split(begin, tmp_path):
    rows(tmp_path, "a.csv", "filepath,title,split", "{p},text {i},{s}", ("train", "val", "test"))
    recipe = begin("s")
    assert (recipe.data.split_column, recipe.data.dataset_split) == ("split", "train")
    assert keys_of(recipe.data) == [f"0{i}.jpg" for i in range(6)]
    assert keys_of(recipe.validation) == [f"1{i}.jpg" for i in range(6)]


def test_a_column_of_another_name_says_the_split(begin, tmp_path):
    rows(tmp_path, "a.csv", "filepaths,labels,data set", "{p},c{i},{s}", ("TRAIN", "TEST"))
    recipe = begin("s")
    assert (recipe.data.split_column, recipe.data.dataset_split) == ("data set", "TRAIN")
    assert recipe.data.task == "classification"
    assert len(keys_of(recipe.data)) == 6


@pytest.mark.parametrize(
    ("header", "splits"),
    [
        ("filepath,title,split", ("train", "extra", "test")),
        ("filepath,title,is_test", ("0", "1")),
        ("filepath,title,split", ("test", "val")),
    ],
)
def test_a_column_that_leaves_a_doubt(begin, tmp_path, header, splits):
    rows(tmp_path, "a.csv", header, "{p},text {i},{s}", splits)
    with pytest.raises(Doubt):
        begin("s")
    assert len(keys_of(begin("s", split="none").data)) == 6 * len(splits)


def test_tables_of_splits(begin, tmp_path):
    for k, split in enumerate(("train", "val", "test")):
        rows(tmp_path, f"{split}.csv", "filepath,title", "{p},text {i}", ["x"] * (k + 1))
    (tmp_path / "s" / "sample_submission.csv").write_text("id,label\n1,0\n")
    recipe = begin("s")
    assert (recipe.data.path, recipe.validation.path) == ("s/train.csv", "s/val.csv")


def test_a_table_of_pictures_in_folders_of_splits(begin, tmp_path):
    lines = ["filepath,title"]
    for i in range(12):
        split = "train" if i < 8 else "test"
        trees.jpeg(tmp_path / "s" / split / f"{i}.jpg", i)
        lines.append(f"{split}/{i}.jpg,text {i}")
    (tmp_path / "s" / "all.csv").write_text("\n".join(lines))
    with pytest.raises(Doubt, match="4 of test, 8 of train"):
        begin("s")


@pytest.mark.parametrize("folders", [False, True])
def test_shards_of_splits(begin, tmp_path, folders):
    for k, split in enumerate(("train", "val", "test")):
        for i in range(2):
            samples = {}
            for n in range(6):
                samples |= {f"{k}{i}{n}.jpg": trees.encoded(6 * k + n, "JPEG")}
                samples |= {f"{k}{i}{n}.txt": b"a picture"}
            name = f"{split}/{i:05d}.tar" if folders else f"cc-{split}-{i:04d}.tar"
            trees.shard(tmp_path / "s" / name, samples)
    recipe = begin("s")
    begins = ("s/train/", "s/val/") if folders else ("s/cc-train-", "s/cc-val-")
    assert recipe.data.shards.startswith(begins[0])
    assert recipe.validation.shards.startswith(begins[1])
    assert len(keys_of(recipe.data)) == 12
    if not folders:
        trees.shard(tmp_path / "s" / "more-00000.tar", samples)
        with pytest.raises(Doubt, match="cc-train, cc-val.*more"):
            begin("s")


@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_lists_of_splits(begin, tmp_path, ending):
    """As Food-101 has them: meta/train.txt with apple_pie/1005649."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for k, name in enumerate(("apple_pie", "ramen")):
        for i in range(8):
            trees.jpeg(tmp_path / "s" / "images" / name / f"{i}.jpg", 8 * k + i)
            lists["test" if i > 5 else "train"].append(f"{name}/{i}{ending}")
    (tmp_path / "s" / "meta").mkdir()
    for split, names in lists.items():
        (tmp_path / "s" / "meta" / f"{split}.txt").write_text("\n".join(names) + "\n")
    recipe = begin("s")
    assert recipe.data.listed_in.endswith("meta/train.txt")
    assert len(keys_of(recipe.data)) == 12
    assert open_data(recipe.data).class_names == ["apple pie", "ramen"]
