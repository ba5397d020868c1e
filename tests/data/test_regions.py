"""Regions and their names, from tables with masks and boxes, and from the built-in scenes."""

import json

import numpy as np
import pytest
import tiny
import trees
from PIL import Image

from radapter.data import icons, open_data
from radapter.data.masked import masked
from radapter.data.settings import MissingData
from radapter.data.sources.regions import RegionsData
from radapter.data.sources.scenes import ScenesData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import dense
from radapter.training import train

PAINT = (123, 117, 104)


@pytest.fixture
def root(tmp_path):
    return trees.regions(tmp_path)


def settings(root, **more):
    more = {"path": "regions.jsonl", "split": "all"} | more
    return RegionsData(source="regions", data_root=str(root), **more)


def written(root, *rows, name="own.jsonl"):
    (root / name).write_text("\n".join(map(json.dumps, rows)))
    return settings(root, path=name)


def by_hand(picture, region):
    """A square with the region in the middle: row by row, pixel by pixel."""
    ys, xs = np.nonzero(region)
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    side = max(height, width)
    wanted = np.full((side, side, 3), PAINT, np.uint8)
    for y, x in zip(ys, xs, strict=True):
        wanted[y - ys.min() + (side - height) // 2, x - xs.min() + (side - width) // 2] = picture[
            y, x
        ]
    return wanted


def test_what_is_cut_out_by_hand(root):
    dataset = open_data(settings(root))
    assert dataset.class_names == ["both", "box", "right side"]
    assert [dataset.class_names[n] for n in dataset.labels] == ["both", "right side", "box"] * 2
    assert dataset.keys[:3] == [
        "pictures/0.jpg, masks/0.png",
        "pictures/0.jpg, masks/0.png: 7",
        "pictures/0.jpg, [2, 3, 12.4, 8]",
    ]
    assert dataset.groups == [0, 0, 0, 1, 1, 1]
    for i in range(2):
        picture = np.asarray(Image.open(root / "pictures" / f"{i}.jpg").convert("RGB"))
        mask = np.asarray(Image.open(root / "masks" / f"{i}.png"))
        box = np.zeros(mask.shape, bool)
        box[3:8, 2:12] = True
        for place, region in enumerate((mask > 0, mask == 7, box)):
            found = np.asarray(dataset.read(3 * i + place))
            np.testing.assert_array_equal(found, by_hand(picture, region))
    assert dataset.protocol["around regions"] == "red 123, green 117, blue 104"


def test_it_is_what_scoring_by_regions_makes():
    assert dense.masked is masked


@pytest.mark.parametrize("form", ["json", "csv"])
def test_other_tables_and_boxes_of_sizes(root, form):
    row = {"image": "pictures/0.jpg", "name": "box", "box": [2, 3, 10, 5]}
    if form == "json":
        (root / "own.json").write_text(json.dumps([row]))
    else:
        (root / "own.csv").write_text('image,name,box,mask\npictures/0.jpg,box,"[2, 3, 10, 5]",\n')
    found = open_data(settings(root, path=f"own.{form}", boxes="sizes"))
    assert found.keys == ["pictures/0.jpg, [2, 3, 12, 8]"]
    wanted = open_data(settings(root)).read(2)
    assert found.read(0).tobytes() == wanted.tobytes()


def test_another_paint(root):
    dataset = open_data(settings(root, paint=(1, 2, 3)))
    assert dataset.read(2).getpixel((0, 0)) == (1, 2, 3)


def test_regions_of_one_picture_are_held_out_together(root):
    more = [
        {"image": f"pictures/{i % 4}.jpg", "name": "ab"[i % 2], "box": [i, 0, i + 2, 5]}
        for i in range(8)
    ]
    for i in (2, 3):
        trees.jpeg(root / "pictures" / f"{i}.jpg", i)
    own = written(root, *more).model_copy(update={"hold_out": 0.5})
    parts = {
        split: {
            key.split(",")[0] for key in open_data(own.model_copy(update={"split": split})).keys
        }
        for split in ("train", "validation")
    }
    assert len(parts["train"]) == len(parts["validation"]) == 2
    assert not parts["train"] & parts["validation"]


WRONG = [
    ({"name": "a", "mask": "m.png"}, r"own.jsonl:2: image is empty."),
    ({"image": "pictures/0.jpg", "name": " ", "box": [0, 0, 1, 1]}, r"own.jsonl:2: name is empty."),
    ({"image": "pictures/0.jpg", "name": "a"}, r":2: neither mask nor box. A row has one of them."),
    ({"image": "pictures/0.jpg", "name": "a", "mask": "m.png", "box": [0, 0, 1, 1]},
     r":2: both mask and box. A row has one of them."),
    ({"image": "pictures/0.jpg", "name": "a", "box": [0, 0, 1]},
     r":2: box has to be a list of four numbers, found '\[0, 0, 1\]'"),
    ({"image": "pictures/0.jpg", "name": "a", "box": [0, 0, "x", True]}, ":2: box has to be"),
    ({"image": "pictures/0.jpg", "name": "a", "box": [5, 0, 5, 9]},
     r":2: box \[5.0, 0.0, 5.0, 9.0\] has no pixel. data.boxes is corners: see there"),
    ({"image": "pictures/0.jpg", "name": "a", "mask": "m.png", "value": "x"},
     r":2: value has to be a number from 0, found 'x'"),
]  # fmt: skip
RIGHT = {"image": "pictures/0.jpg", "name": "a", "box": [0, 0, 4, 4]}


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_a_row_that_is_none_is_named_with_its_line(root, row, message):
    own = written(root, RIGHT, row)
    with pytest.raises(BrokenInput, match=message):
        open_data(own)
    dataset = open_data(own.model_copy(update={"broken_rows": 1}))
    assert len(dataset) == 1
    assert len(dataset.left_out["broken row"]) == 1


UNREADABLE = [
    ({"mask": "masks/small.png"}, r"masks/small.png has 5 x 4 pixels, and .*pictures/0.jpg 48 x "
                                  r"40: a mask is of its picture's size."),
    ({"mask": "masks/none.png"}, r"masks/none.png.* cannot be read"),
    ({"mask": "masks/0.png", "value": 3}, r"masks/0.png has no pixel of the value 3."),
    ({"mask": "masks/blank.png"}, r"masks/blank.png has nothing but 0."),
    ({"mask": "masks/colours.png"}, r"masks/colours.png is in colours \(RGB\), and a mask"),
    ({"box": [-1, 0, 4, 4]}, r"The box of pictures/0.jpg, \[-1, 0, 4, 4\] is not inside"),
    ({"box": [0, 0, 4, 900]}, r"is not inside .*pictures/0.jpg, which has \d+ x \d+ pixels."),
    ({"image": "pictures/9.jpg", "box": [0, 0, 4, 4]}, r"pictures/9.jpg"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), UNREADABLE)
def test_a_region_that_cannot_be_cut_out_is_named(root, row, message):
    size = Image.open(root / "pictures" / "0.jpg").size
    Image.new("L", (5, 4), 1).save(root / "masks" / "small.png")
    Image.new("L", size).save(root / "masks" / "blank.png")
    Image.new("RGB", size).save(root / "masks" / "colours.png")
    dataset = open_data(written(root, {"image": "pictures/0.jpg", "name": "a"} | row))
    with pytest.raises(BrokenInput, match=message):
        dataset.read(0)


def test_what_is_not_there_or_not_said(root):
    with pytest.raises(MissingData, match="No such table: .*none.jsonl. Correct data.path"):
        open_data(settings(root, path="none.jsonl"))
    for tree, message in (
        ("{source: regions}", "give path, a table of regions, or scenes, and not both"),
        ("{source: regions, scenes: {source: scenes}}", "for scoring: set data.scenes.split=train"),
        ("{source: scenes}", "or on `source: regions` with scenes of the split train"),
    ):
        with pytest.raises(UsageError, match=message):
            tiny.recipe("model", "data", f"data={tree}")


def test_a_changed_mask_is_noticed(root):
    dataset = open_data(settings(root))
    before = dataset.stamp(0), dataset.stamp(2), dataset.fingerprint()
    Image.new("L", (300, 200), 1).save(root / "masks" / "0.png")
    assert dataset.stamp(0) != before[0]
    assert dataset.stamp(2) == before[1]  # a box has none
    assert dataset.fingerprint() != before[2]


# ------------------------------------------------------------------ built-in scenes


def of_scenes(**more):
    scenes = {"source": "scenes", "split": "train", "pictures": 12, **more}
    return open_data(RegionsData(source="regions", scenes=scenes, split="all"))


@pytest.mark.parametrize("ground", ["white", "clouded"])
def test_every_drawing_of_the_scenes_is_a_region_with_its_class(ground):
    dataset = of_scenes(ground=ground)
    scenes = dataset.read.__self__.scenes
    place = 0
    for number in range(12):
        picture = np.asarray(scenes.read(number))
        mask, regions = scenes.mask(number), scenes.regions(number)
        for drawing, region in enumerate(regions):
            assert dataset.keys[place] == f"icons/{ground}/{number:05}/{drawing}"
            label = np.unique(mask[region])
            assert label.tolist() == [dataset.labels[place] + 1]
            np.testing.assert_array_equal(np.asarray(dataset.read(place)), by_hand(picture, region))
            place += 1
    assert place == len(dataset)


@pytest.mark.parametrize("of", ["icons", "emoji"])
def test_nothing_that_is_scored_is_in_them(of):
    drawn = {}
    for split in ("train", "test"):
        _, scenes = ScenesData(source="scenes", split=split, of=of, words=None).parts()
        drawn[split] = {drawing for of_class in scenes.of_class for drawing in of_class}
    assert min(map(len, drawn.values())) > 100
    if of == "emoji":
        drawn = {split: {hexcode for _, hexcode in own} for split, own in drawn.items()}
    else:
        by_number = {icon.number: icons.designer(icon) for icon in icons.pictures()}
        drawn = {split: {by_number[n] for n in own} for split, own in drawn.items()}
    assert not drawn["train"] & drawn["test"]


@pytest.mark.parametrize("method", ["{name: full}", "{name: r-adapter}"])
def test_masked_crops_are_trained_on(tiny_folder, root, tmp_path, method):
    rows = [
        {"image": f"pictures/{i % 2}.jpg", "name": ("a", "b")[i % 2], "box": [i, 0, i + 9, 9]}
        for i in range(10)
    ]
    own = written(root, *rows).model_dump(mode="json", exclude_unset=True)
    recipe = tiny.recipe(tiny_folder, root, f"method={method}", f"data={json.dumps(own)}")
    run = train(recipe, tmp_path / "runs")
    losses = [line["loss"] for line in run.logged("loss")]
    assert np.isfinite(losses).all()
    assert run.class_names() == ["a", "b"]
