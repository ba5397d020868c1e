import json
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
import trees
from pydantic import TypeAdapter

from radapter.data import open_data
from radapter.data.opening import DataSource
from radapter.data.pairs import Pairs, training_transform
from radapter.errors import BrokenInput, UsageError

CFG = {"size": 16}


def settings(root, **more):
    tree = {"source": "drawings", "path": str(root), "augmentation": {"crop": [1.0, 1.0]}, **more}
    return TypeAdapter(DataSource).validate_python(tree)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.drawings(tmp_path_factory.mktemp("drawings") / "set")


def pairs(section, seed=0):
    return Pairs(open_data(section), section, training_transform(section.augmentation, CFG), seed)


def test_held_out_families_are_never_trained_on(root):
    section = settings(root, held_out_families=["ink"])
    trained, held = open_data(section), open_data(section.held_out())
    assert {key.split("/")[0] for key in trained.keys} == {"paint", "chalk"}
    assert {key.split("/")[0] for key in held.keys} == {"ink"}
    assert len(open_data(section.scored())) == len(trained) + len(held)
    assert settings(root).held_out() is None
    with pytest.raises(UsageError, match="'inkk'.*ink"):
        open_data(settings(root, held_out_families=["inkk"]))


def test_held_out_pictures_are_the_same_every_time_and_have_one_name_each(root):
    held = open_data(settings(root, held_out_families=["ink"]).held_out())
    other = open_data(settings(root, held_out_families=["ink"]).held_out())
    assert held.captions == [[f"disc {i}"] for i in range(4)]
    assert held.draw is None
    for i in range(4):
        assert held.read(i).tobytes() == other.read(i).tobytes()


def test_drawings_of_one_name_are_one_group(root):
    groups = open_data(settings(root)).groups
    assert groups == [0, 1, 2, 3] * 3


def test_an_epoch_has_each_drawing_once_and_each_epoch_another_picture(root):
    data = pairs(settings(root))
    assert len(data) == 12
    first, again, later = data[0, 3], data[0, 3], data[1, 3]
    assert first["text"] == again["text"]
    assert (first["image"] == again["image"]).all()
    assert (first["image"] != later["image"]).any()
    assert data[0, 3, False] == {key: first[key] for key in ("text", "group", "own")}
    assert (pairs(settings(root), seed=1)[0, 3]["image"] != first["image"]).any()


def test_the_list_says_how_often_an_epoch_has_a_drawing(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "set")
    entries = json.loads((folder / "drawings.json").read_text())
    entries[3]["times"] = 3
    (folder / "drawings.json").write_text(json.dumps(entries))
    data = pairs(settings(folder))
    assert len(data) == 12 + 2
    again = [i for i, key in enumerate(data.dataset.keys) if key.startswith(entries[3]["key"])]
    assert len(again) == 3
    assert len(set(data.dataset.keys)) == len(data)
    assert len({data.dataset.groups[i] for i in again}) == 1
    first, second, third = (data[0, i]["image"] for i in again)
    assert (first != second).any()
    assert (second != third).any()
    held_out = settings(folder, held_out_families=[entries[3]["family"]]).held_out()
    assert len(open_data(held_out)) == 4  # once each


def test_workers_draw_the_same(root):
    data = pairs(settings(root))
    sent = pickle.loads(pickle.dumps(data.dataset))
    here, there = data.dataset.draw(5, 0, 99), sent.draw(5, 0, 99)
    assert here.read().tobytes() == there.read().tobytes()
    assert here.text == there.text
    assert len(pickle.dumps(data.dataset)) < 20_000  # the pictures stay in their file


def test_captions_are_names_keywords_and_phrases(root):
    data = pairs(settings(root, several=0.0))
    drawn = Counter(data[epoch, 3]["text"] for epoch in range(400))
    assert 0.5 < drawn["disc 3"] / 400 < 0.7
    rest = set(drawn) - {"disc 3"}
    assert {"round", "dot", "line icon of disc 3", "round, full, spot"} <= rest
    assert all(
        set(text.split(", ")) <= {"round", "full", "spot", "dot"} or "icon" in text for text in rest
    )
    assert [data[e, 3]["own"] for e in range(50)] == [
        data[e, 3]["text"] != "disc 3" for e in range(50)
    ]


def test_several_drawings_are_named_together(root):
    data = pairs(settings(root, several=1.0))
    texts = [data[epoch, 0]["text"] for epoch in range(60)]
    assert all(text.startswith("disc 0") and " and disc " in text for text in texts)
    assert {text.count("disc") for text in texts} == {2, 3}
    assert all(data[epoch, 0]["own"] for epoch in range(10))


def test_without_any_change_a_drawing_is_black_on_white(root):
    plain = settings(root, coloured=0.0, smallest=1.0, turn=0.0, several=0.0)
    picture = np.asarray(open_data(plain).read(0))
    coverage = np.load(root / "coverage.npy")[0]
    assert (picture == 255 - coverage[..., None]).all()


def test_a_damaged_folder_is_named(root, tmp_path):
    with pytest.raises(BrokenInput, match="no drawings.json"):
        open_data(settings(tmp_path))
    (tmp_path / "drawings.json").write_text("[")
    with pytest.raises(BrokenInput, match="damaged"):
        open_data(settings(tmp_path))
    entries = json.loads((root / "drawings.json").read_text())
    (tmp_path / "drawings.json").write_text(json.dumps(entries))
    with pytest.raises(BrokenInput, match=r"coverage\.npy cannot be read"):
        open_data(settings(tmp_path)).read(0)


def test_the_first_epochs_may_be_easier(root):
    plain = {"coloured": 1.0, "clouds": 0.0, "several": 0.0}
    data = open_data(settings(root, easier_epochs=4, **plain))

    def share_on_white(epoch):
        pictures = (data.draw(8, epoch, seed).read() for seed in range(300))
        return sum(picture.getpixel((0, 0)) == (255, 255, 255) for picture in pictures) / 300

    assert share_on_white(0) == pytest.approx(0.8, abs=0.08)
    assert share_on_white(2) == pytest.approx(0.4, abs=0.08)
    assert share_on_white(4) < 0.03
    assert share_on_white(9) < 0.03
