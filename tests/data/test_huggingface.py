"""Sets of Hugging Face datasets: saved ones for real where the package is, and how it is missed."""

import builtins
import pickle
import shutil

import pytest
import trees

from radapter import recipe as recipes
from radapter.data import open_data
from radapter.data.sources.huggingface import HuggingFaceData
from radapter.errors import BrokenInput, MissingDependency, UsageError


def opened(path, **values):
    return open_data(HuggingFaceData(source="huggingface", path=str(path), **values))


def test_a_missing_package_says_what_to_type(tmp_path, monkeypatch):
    really = builtins.__import__

    def without(name, *more, **options):
        if name == "datasets":
            raise ImportError(name)
        return really(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install \"radapter\[hf\]\""):
        opened(tmp_path, label_column="label")


def test_a_recipe_names_what_it_needs():
    text = "name: a\nmodel: m\nmethod: {name: full}\ndata: {source: huggingface, path: x/y}\n"
    with pytest.raises(UsageError, match="text_column and label_column are both missing"):
        recipes.parse(text)


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def saved(datasets, tmp_path_factory):
    """Two splits of pictures (as bytes) with classes, class words and captions."""
    root = tmp_path_factory.mktemp("hf")

    def rows(numbers):
        return datasets.Dataset.from_dict(
            {
                "image": [{"bytes": trees.encoded(i, "PNG"), "path": f"{i}.png"} for i in numbers],
                "label": [i % 3 for i in numbers],
                "word": [["cat", "dog"][i % 2] for i in numbers],
                "caption": [f" picture {i} " for i in numbers],
                "sentences": [[f"picture {i}", f"number {i}"] for i in numbers],
                "number": list(numbers),
            },
            features=datasets.Features(
                {
                    "image": datasets.Image(),
                    "label": datasets.ClassLabel(names=["sea_lion", "fox", "tench, Tinca tinca"]),
                    "word": datasets.Value("string"),
                    "caption": datasets.Value("string"),
                    "sentences": datasets.List(datasets.Value("string")),
                    "number": datasets.Value("int64"),
                }
            ),
        )

    splits = datasets.DatasetDict({"train": rows(range(12)), "test": rows(range(12, 18))})
    splits.save_to_disk(root / "splits")
    splits["test"].shuffle(seed=1).save_to_disk(root / "one")
    splits["train"].to_parquet(root / "parquet" / "train.parquet")
    return root


def test_classes(saved):
    found = opened(saved / "splits", dataset_split="test", label_column="label")
    assert len(found) == 6
    assert found.class_names == ["sea lion", "fox", "tench, Tinca tinca"]
    assert found.labels == [i % 3 for i in range(12, 18)]
    assert found.read(2).tobytes() == trees.draw(14).tobytes()
    again = pickle.loads(pickle.dumps(found.read))  # it goes to worker processes
    assert again(2).tobytes() == trees.draw(14).tobytes()
    words = opened(saved / "splits", dataset_split="test", label_column="word")
    assert (words.class_names, words.labels) == (["cat", "dog"], [0, 1] * 3)


def test_captions(saved):
    settings = {"dataset_split": "train", "task": "captions"}
    one = opened(saved / "splits", text_column="caption", **settings)
    assert one.captions[3] == ["picture 3"]
    several = opened(saved / "splits", text_column="sentences", label_column="label", **settings)
    assert several.captions[3] == ["picture 3", "number 3"]
    assert several.labels[3] == 0
    parts = [
        opened(saved / "splits", text_column="caption", hold_out=0.4, split=s, **settings)
        for s in ("train", "validation")
    ]
    assert sorted(parts[0].keys + parts[1].keys) == one.keys


def test_a_saved_split_keeps_its_order(saved):
    """It was shuffled: pictures and texts go through the same index."""
    found = opened(saved / "one", text_column="caption", task="captions")
    numbers = [int(texts[0].split()[1]) for texts in found.captions]
    assert numbers != sorted(numbers)
    assert [found.read(i).tobytes() for i in range(6)] == [
        trees.draw(number).tobytes() for number in numbers
    ]


def test_a_folder_of_data_files(saved, monkeypatch, tmp_path, datasets):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    found = opened(saved / "parquet", text_column="caption", task="captions")
    assert len(found) == 12


def test_sizes_of_pictures_are_known_without_reading_them(saved, datasets, tmp_path):
    found = opened(saved / "one", text_column="caption", task="captions")
    numbers = [int(texts[0].split()[1]) for texts in found.captions]
    sizes = [len(trees.encoded(number, "PNG")) for number in numbers]
    assert [found.stamp(i)[0] for i in range(len(found))] == sizes
    files = list((saved / "one").glob("*.arrow"))
    assert {found.stamp(i)[1] for i in range(len(found))} == {
        max(file.stat().st_mtime_ns for file in files)
    }
    moved = opened(
        shutil.copytree(saved / "one", tmp_path / "moved"), text_column="caption", task="captions"
    )
    assert moved.fingerprint() == found.fingerprint()
    path = trees.jpeg(tmp_path / "named.jpg", 3)
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": str(path)}, None], "text": ["a", "b"]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    rows.save_to_disk(tmp_path / "paths")
    named = opened(tmp_path / "paths", text_column="text", task="captions")
    assert named.stamp(1) == (-1, -1, -1)
    assert named.stamp(0)[0] == path.stat().st_size


def test_what_is_not_right(saved, datasets, tmp_path, monkeypatch):
    settings = {"label_column": "label", "dataset_split": "train"}
    with pytest.raises(UsageError, match=r"several splits: set data.dataset_split \(train, test\)"):
        opened(saved / "splits", label_column="label")
    with pytest.raises(BrokenInput, match=r"no split 'tset'.*Did you mean 'test'"):
        opened(saved / "splits", label_column="label", dataset_split="tset")
    with pytest.raises(BrokenInput, match=r"no column 'img'"):
        opened(saved / "splits", image_column="img", **settings)
    with pytest.raises(BrokenInput, match=r"column 'word' has no pictures"):
        opened(saved / "splits", image_column="word", **settings)
    with pytest.raises(BrokenInput, match=r"column 'number' has no class names"):
        opened(saved / "splits", **(settings | {"label_column": "number"}))
    with pytest.raises(BrokenInput, match=r"column 'number' has no texts in row 0"):
        opened(saved / "splits", text_column="number", task="captions", **settings)
    with pytest.raises(UsageError, match="no captions"):
        opened(saved / "splits", task="captions", **settings)
    with pytest.raises(BrokenInput, match="No such folder"):
        opened(tmp_path / "missing", **settings)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(BrokenInput, match=r"set 'nobody/nothing' cannot be .*save_to_disk"):
        opened("nobody/nothing", **settings)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(BrokenInput, match="cannot be loaded"):
        opened(tmp_path, **settings)


def test_a_broken_picture_is_named(datasets, tmp_path):
    stored = [{"bytes": b"no picture", "path": "bad.png"}, {"bytes": b"", "path": None}, None]
    rows = datasets.Dataset.from_dict(
        {"image": stored, "text": ["a", "b", "c"]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    rows.save_to_disk(tmp_path / "set")
    found = opened(tmp_path / "set", text_column="text", task="captions")
    for index, message in enumerate(
        [r"row 0 \(bad.png\)", r"row 1 \(no file name\)", "row 2 has none"]
    ):
        with pytest.raises(BrokenInput, match=f"Picture cannot be read: .*{message}"):
            found.read(index)


def test_no_program_is_run(datasets, tmp_path, monkeypatch):
    """A set that comes as a script is an error, and the script leaves no trace."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(BrokenInput, match="cannot be loaded"):
        opened(folder, label_column="label")
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(MissingDependency, match="datasets>=4"):
        opened(folder, label_column="label")
