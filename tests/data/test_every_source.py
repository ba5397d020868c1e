"""What holds for every registered source; a new one needs a function in tests/source_trees.py."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import source_trees
from pydantic import TypeAdapter

from radapter import recipe as recipes
from radapter.data import Dataset, open_data
from radapter.data.clips import frames_of
from radapter.data.edits import MEASURES
from radapter.data.opening import DataSource
from radapter.errors import UsageError
from radapter.registry import SOURCES, load


def described(name, root):
    """The section of a miniature that is filled into a folder."""
    root.mkdir()
    settings = getattr(source_trees, name.replace("-", "_"))(root)
    tree = {"source": name, "data_root": str(root), **settings}
    return TypeAdapter(DataSource).validate_python(tree)


@pytest.fixture(scope="module", params=SOURCES)
def section(request, tmp_path_factory):
    return described(request.param, tmp_path_factory.mktemp("source") / "data")


@pytest.fixture(scope="module")
def dataset(section) -> Dataset:
    return open_data(section)


def test_every_picture_has_a_name_and_what_the_task_needs(section, dataset):
    assert len(dataset) == len(dataset.groups) == len(set(dataset.keys)) > 3
    if section.task == "classification":
        assert len(dataset.labels) == len(dataset)
        assert set(dataset.labels) <= set(range(len(dataset.class_names)))
    elif section.task == "segmentation":
        mask = dataset.mask(0)
        assert mask.shape == dataset.read(0).size[::-1]
        assert set(np.unique(mask)) <= set(range(-1, len(dataset.class_names) + 1))
    elif section.task == "captions":
        assert len(dataset.captions) == len(dataset)
        assert all(dataset.captions)
    else:
        rows = range(len(dataset))
        for edit in dataset.edits:
            assert edit.texts
            assert {edit.reference, *edit.targets, *edit.subset, *edit.gallery} <= {*rows}
            assert {*edit.targets} <= {*edit.gallery} - {edit.reference}
            assert {*edit.subset} <= {*edit.gallery} - {edit.reference}
        assert set(dataset.measured) <= MEASURES.keys()


def pixels(item):
    return [frame.tobytes() for frame in frames_of(item)]


def test_pictures_are_read_alike_in_another_process(dataset):
    other = pickle.loads(pickle.dumps(dataset))  # as worker processes get it
    for i in (0, len(dataset) - 1):
        item = dataset.read(i)
        assert isinstance(item, list) == (dataset.frames is not None)
        assert 1 <= len(frames_of(item)) <= (dataset.frames or 1)
        assert all(frame.mode == "RGB" for frame in frames_of(item))
        assert pixels(other.read(i)) == pixels(item)
        assert other.stamp(i) == dataset.stamp(i)
        assert min(dataset.stamp(i)) > 0
        if dataset.digest is not None:
            assert other.digest(i) == dataset.digest(i)
            assert len(dataset.digest(i)) == 64


def test_the_same_content_elsewhere_is_the_same_task(section, dataset, tmp_path):
    assert open_data(section).fingerprint() == dataset.fingerprint()
    moved = open_data(described(section.source, tmp_path / "deeper"))
    assert moved.fingerprint() == dataset.fingerprint()
    assert moved.keys == dataset.keys


@pytest.mark.parametrize("name", SOURCES)
def test_settings_name_the_set(name):
    """A study refuses to choose on pictures of a shift: it asks the source which set they are."""
    kind = load(SOURCES, name)
    assert kind.named_by
    assert set(kind.named_by) <= kind.model_fields.keys()


def test_a_selection_is_of_the_same_pictures(dataset):
    places = [len(dataset) - 1, 1]
    part = dataset.select(places)
    assert part.keys == [dataset.keys[i] for i in places]
    assert part.groups == [dataset.groups[i] for i in places]
    assert part.labels == [dataset.labels[i] for i in places if dataset.labels]
    assert part.choices == [dataset.choices[i] for i in places if dataset.choices]
    assert part.captions == [dataset.captions[i] for i in places if dataset.captions]
    assert pixels(part.read(0)) == pixels(dataset.read(places[0]))
    assert [part.stamp(i) for i in range(2)] == [dataset.stamp(i) for i in places]
    assert part.fingerprint() != dataset.fingerprint()
    assert dataset.select(list(range(len(dataset)))).fingerprint() == dataset.fingerprint()


def test_a_section_is_written_and_read_back(section):
    assert type(section).model_validate(section.model_dump(mode="json")) == section
    words = section.in_words()
    assert words
    assert "\n" not in words
    assert len(words) < 60


def test_a_later_process_finds_it_without_the_data_root(section, dataset, tmp_path, monkeypatch):
    unrooted = section.model_copy(update={"data_root": None})
    monkeypatch.setenv("RADAPTER_DATA", section.data_root)
    settled = unrooted.settled()
    monkeypatch.delenv("RADAPTER_DATA")
    monkeypatch.chdir(tmp_path)
    assert settled.settled() == settled
    assert open_data(settled).fingerprint() == dataset.fingerprint()
    assert open_data(settled).protocol == dataset.protocol


def test_an_unknown_key_is_refused_with_its_place(section):
    data = {**section.model_dump(mode="json", exclude_unset=True), "brocken_images": 1}
    text = f"name: a\nmodel: m\nmethod: {{name: full}}\ndata: {data!r}\n".replace("None", "null")
    with pytest.raises(UsageError, match=r"unknown key 'data\.brocken_images'.*broken_images"):
        recipes.parse(text)


TOY = """
from typing import Literal

from PIL import Image

from radapter.data.dataset import Dataset
from radapter.data.settings import Data


class Colours:
    def read(self, i):
        return Image.new("RGB", (8, 8), (i, 0, 0))


class ToyData(Data):
    source: Literal["toy"]
    pictures: int = 4

    def open(self):
        n = self.pictures
        return Dataset(
            "toy", [str(i) for i in range(n)], Colours().read,
            labels=[i % 2 for i in range(n)], class_names=["a", "b"], groups=list(range(n)),
        )
"""
USE = """
from radapter.registry import SOURCES, load

SOURCES["toy"] = "toy:ToyData"
from radapter import recipe
from radapter.data import open_data

text = "name: a\\nmodel: m\\nmethod: {name: full}\\ndata: {source: toy, pictures: 6}\\n"
data = recipe.parse(text).data
found = open_data(data)
assert (len(found), found.read(3).getpixel((0, 0)), data.in_words()) == (6, (3, 0, 0), "toy")
try:
    recipe.parse(text.replace("pictures", "picture"))
except Exception as error:
    print(error)
"""


def test_another_source_is_one_file_and_one_line(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "recipe:4:21: unknown key 'data.picture'; did you mean 'pictures'?\n"
