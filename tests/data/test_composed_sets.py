"""Sets of composed retrieval: who is ranked, who is right, and what is said of damaged ones."""

import json

import numpy as np
import pytest
import source_trees
import trees
from PIL import Image
from pydantic import TypeAdapter

from radapter.data import open_data
from radapter.data.composed import with_choosing
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.opening import DataSource
from radapter.data.sources.genecis import squared, with_margin
from radapter.errors import BrokenInput


def opened(root, source, **settings):
    if not list(root.glob("[A-Z]*")):
        getattr(source_trees, source)(root)
    tree = {"source": source, "data_root": str(root), **settings}
    return open_data(TypeAdapter(DataSource).validate_python(tree))


def named(dataset, edit):
    return [dataset.keys[i] for i in edit.targets]


def test_cirr_ranks_the_split_without_the_reference_and_five_others(tmp_path):
    found = opened(tmp_path, "cirr")
    assert found.keys == [f"dev-{i}-0-img{i % 2}" for i in range(8)]
    edit = found.edits[1]
    assert (edit.name, edit.texts, edit.without_reference) == ("12061", ("paint it 1",), True)
    assert (found.keys[edit.reference], named(found, edit)) == ("dev-2-0-img0", ["dev-3-0-img1"])
    assert edit.subset == (1, 3, 4)
    assert list(edit.gallery) == list(range(8))
    assert found.read(3).tobytes() == trees.draw(3).tobytes()
    assert not any(edit.targets for edit in opened(tmp_path, "cirr", split="test").edits)
    assert opened(tmp_path, "cirr", split="train").keys[0] == "train-0-0-img0"


def test_circo_has_several_right_pictures_and_ranks_the_reference_too(tmp_path):
    found = opened(tmp_path, "circo")
    edit = found.edits[1]
    assert found.keys[:2] == ["243611", "251530"]
    assert (found.keys[edit.reference], edit.without_reference) == ("251530", False)
    assert named(found, edit) == ["259449", "267368", "275287"]
    assert found.measured == ["map_5", "map_10", "map_25", "map_50"]


def test_fashioniq_joins_both_wordings_in_both_orders(tmp_path):
    found = opened(tmp_path, "fashioniq", category="dress")
    first, second = "is more red", "has longer sleeves"
    assert found.edits[0].texts == (f"{first} and {second}", f"{second} and {first}")
    assert len(found.edits[0].gallery) == 8
    assert (
        len(opened(tmp_path, "fashioniq", category="dress", protocol="val").edits[0].gallery) == 6
    )


def test_a_genecis_edit_has_a_gallery_of_its_own(tmp_path):
    found = opened(tmp_path, "genecis", condition="focus_object")
    edit = found.edits[2]
    assert found.keys[edit.reference] == "000000189215.jpg"
    assert [found.keys[i] for i in edit.gallery] == [
        f"000000{n}.jpg" for n in range(189216, 189220)
    ]
    assert named(found, edit) == ["000000189216.jpg"]
    cut = opened(tmp_path, "genecis", condition="change_attribute")
    assert cut.keys[:2] == ["2414890.jpg@0,5,20,10", "2414890.jpg@10,5,20,10"]
    # From (10 - 14, 5 - 7), which is outside, to 34 by 17 further, in a square of 34.
    assert with_margin((10, 5, 20, 10), (48, 40)) == (0, 0, 34, 17)
    assert with_margin((20, 30, 20, 10), (48, 40)) == (6, 23, 40, 40)
    picture = cut.read(1)
    assert picture.size == (34, 34)
    assert np.asarray(picture)[:8].max() == np.asarray(picture)[26:].max() == 0
    assert squared(Image.new("RGB", (3, 5), "red")).getpixel((0, 2)) == (0, 0, 0)
    assert squared(Image.new("RGB", (3, 5), "red")).getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("source", "file", "broken", "said"),
    [
        ("cirr", "cirr/captions/cap.rc2.val.json", {"reference": "dev-9"}, "names a picture that"),
        ("cirr", "cirr/captions/cap.rc2.val.json", {"caption": None}, "entry 0 has no caption"),
        ("circo", "annotations/val.json", {"gt_img_ids": [1]}, "that the split has not: '1'"),
        ("fashioniq", "captions/cap.dress.val.json", {"target": "B1"}, "has not: 'B1'"),
        ("genecis", "genecis/change_attribute.json", {"target": {}}, "entry 0 is malformed"),
    ],
)
def test_what_is_damaged_is_said(tmp_path, source, file, broken, said):
    settings = getattr(source_trees, source)(tmp_path)
    (path,) = tmp_path.glob(f"*/{file}")
    content = json.loads(path.read_text())
    content[0] = {k: v for k, v in (content[0] | broken).items() if v is not None}
    path.write_text(json.dumps(content))
    with pytest.raises(BrokenInput, match=said) as refused:
        opened(tmp_path, source, **settings)
    assert str(path) in str(refused.value)
    path.write_text("{")
    with pytest.raises(BrokenInput, match="is not valid JSON"):
        opened(tmp_path, source, **settings)
    path.unlink()
    with pytest.raises(BrokenInput, match="No such file"):
        opened(tmp_path, source, **settings)


def test_a_missing_picture_is_named(tmp_path):
    source_trees.circo(tmp_path)
    (tmp_path / "CIRCO/COCO2017_unlabeled/unlabeled2017/000000243611.jpg").unlink()
    with pytest.raises(BrokenInput, match=r"1 of 8 pictures are missing: .*000000243611\.jpg"):
        opened(tmp_path, "circo")


def edits_of(**changes):
    gallery = [0, 1, 2, 3]
    return [
        Edit("a", 0, ("redder",), (1, 2), gallery, subset=(1, 3), **changes),
        Edit("b", 3, ("larger",), (2,), gallery, **changes),
    ]


def dataset(source, keys, edits, **columns):
    return Dataset(
        source, keys, lambda i: f"{source} {keys[i]}", groups=list(range(len(keys))), edits=edits,
        stamp=lambda i: (len(keys[i]), 1, 1), **columns,
    )  # fmt: skip


def test_a_selection_has_the_edits_whose_pictures_are_there():
    some = dataset("set", list("abcd"), edits_of())
    (edit,) = some.select([3, 1, 0]).edits  # the second has no right picture any more
    assert (edit.reference, edit.targets, edit.subset) == (2, (1,), (1, 0))
    assert edit.gallery == [2, 1, 0]
    assert some.select([1, 2, 3]).edits == [Edit("b", 2, ("larger",), (1,), [0, 1, 2])]
    both = some.select([3, 2, 1, 0]).edits
    assert both[0].gallery is both[1].gallery
    assert len({some.fingerprint(), dataset("set", list("abcd"), edits_of()[:1]).fingerprint(),
                dataset("set", list("abcd"), edits_of(kind="x")).fingerprint()}) == 3  # fmt: skip


def test_a_picture_of_both_sets_is_one_and_the_second_only_chooses():
    scored = dataset("scored", list("abcd"), edits_of())
    other = dataset("other", ["x", "a", "y", "d"], edits_of())
    found = with_choosing(scored, other)
    assert found.keys == ["a", "b", "c", "d", "x", "y"]
    assert found.read(4) == "other x"
    assert [edit.chooses for edit in found.edits] == [False, False, True, True]
    assert found.edits[:2] == scored.edits
    assert [(e.reference, e.targets, e.gallery) for e in found.edits[2:]] == [
        (4, (0, 5), [4, 0, 5, 3]), (3, (5,), [4, 0, 5, 3]),
    ]  # fmt: skip
    assert found.protocol["weight of the text"] == "chosen on other"
