"""Karpathy's files, COCO's official ones and Kaggle's table, on miniature trees."""

import json
from collections import Counter

import pytest
import trees

from radapter import recipe as recipes
from radapter.data import open_data
from radapter.data.sources.coco_captions import CocoCaptionsData
from radapter.data.sources.karpathy import KarpathyData
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput, UsageError


@pytest.fixture(scope="module")
def flickr(tmp_path_factory):
    return trees.flickr30k(tmp_path_factory.mktemp("data") / "flickr30k")


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return trees.coco(tmp_path_factory.mktemp("data") / "coco")


def karpathy(path, **values):
    return open_data(KarpathyData(source="karpathy", path=str(path), **values))


def official(path, **values):
    return open_data(CocoCaptionsData(source="coco-captions", path=str(path), **values))


def same(picture, number):
    """Whether it is the picture drawn for a number, as far as JPEG lets it be."""
    drawn = trees.draw(number).convert("RGB")
    return all(
        abs(a - b) < 40
        for a, b in zip(picture.getpixel((40, 36)), drawn.getpixel((40, 36)), strict=True)
    )


def test_flickr30k(flickr):
    path = flickr / "dataset_flickr30k.json"
    counts = {s: len(karpathy(path, split=s)) for s in ("train", "validation", "test", "all")}
    assert counts == {"train": 12, "validation": 4, "test": 4, "all": 20}
    test = karpathy(path, split="test")
    assert test.keys[0] == f"{1000092795 + 7919 * 16}.jpg"
    assert test.captions[0][:2] == ["A red picture seen 0.", "A red picture seen 1 ."]
    assert {len(texts) for texts in test.captions} == {5}
    assert len(set(test.groups)) == 4
    assert not test.labels
    assert same(test.read(1), 17)


@pytest.mark.parametrize("pictures", ["", "images", "flickr30k-images"])
def test_where_flickr_pictures_lie_changes_nothing_else(tmp_path, flickr, pictures):
    other = trees.flickr30k(tmp_path / "other", pictures)
    found = karpathy(other / "dataset_flickr30k.json", split="test")
    known = karpathy(flickr / "dataset_flickr30k.json", split="test")
    assert (found.keys, found.captions) == (known.keys, known.captions)
    assert found.read(0).tobytes() == known.read(0).tobytes()
    (tmp_path / "files").mkdir()
    moved = (other / "dataset_flickr30k.json").rename(tmp_path / "files" / "split.json")
    assert len(karpathy(moved, root=str(other))) == 12


def test_coco_trains_on_train_and_restval(coco):
    path = coco / "dataset_coco.json"
    train = karpathy(path, split="train")
    assert Counter(key.split("/")[0] for key in train.keys) == {"train2014": 5, "val2014": 5}
    assert len(karpathy(path, split="validation")) == len(karpathy(path, split="test")) == 5
    assert train.keys[0] == "val2014/COCO_val2014_000000392904.jpg"
    assert same(train.read(1), 3)
    splits = [set(karpathy(path, split=s).keys) for s in ("train", "validation", "test")]
    assert len(set.union(*splits)) == sum(map(len, splits)) == 20


def test_cocos_two_caption_protocols(coco):
    """25,000 and 25,010 on the real test split: five of each, or six and seven of some."""
    path = coco / "dataset_coco.json"
    content = json.loads(path.read_text())["images"]
    every = [image["sentences"] for image in content if image["split"] == "test"]
    five = karpathy(path, split="test")
    assert [len(texts) for texts in five.captions] == [5] * 5
    assert five.protocol == {
        "captions": "vse++",
        "of each picture": "the first 5 captions",
        "orientation": "ignore",
        "transparency": "discard",
    }
    everything = karpathy(path, split="test", protocol="clip-benchmark")
    assert everything.protocol["captions"] == "clip-benchmark"
    assert [len(texts) for texts in everything.captions] == [len(s) for s in every]
    assert sum(map(len, everything.captions)) > 25
    assert five.captions == [[s["raw"].strip() for s in texts[:5]] for texts in every]


def test_the_files_val_split_is_what_validates(coco):
    text = f"""\
name: a
model: pictogram-clip
method: {{name: r-adapter}}
data: {{source: karpathy, path: {coco}/dataset_coco.json}}
"""
    recipe = recipes.parse(text)
    assert recipe.data.task == "captions"
    found = open_data(recipe.validation_data())
    assert found.keys == karpathy(coco / "dataset_coco.json", split="validation").keys
    assert not set(found.keys) & set(open_data(recipe.data).keys)
    with pytest.raises(UsageError, match="task: input should be 'captions'"):
        recipes.parse(text, overrides=["data.task=classification"])


def test_missing_pictures_are_counted_and_named_without_opening_any(tmp_path):
    root = trees.coco(tmp_path / "coco")
    for path in (root / "val2014").iterdir():
        path.write_bytes(b"")  # nothing is decoded
    path = root / "dataset_coco.json"
    keys = karpathy(path, split="test").keys
    for key in keys[1:]:
        (root / key).unlink()
    with pytest.raises(BrokenInput) as caught:
        karpathy(path, split="test")
    assert str(caught.value).startswith(
        f"4 of 5 pictures are missing: {keys[1]}, {keys[2]}, {keys[3]}, .... Looked in {root} or "
    )
    assert "set data.root" in str(caught.value)
    karpathy(path, split="validation")  # the other splits are whole
    found = karpathy(path, split="test", broken_images=4)  # they count as broken when read
    with pytest.raises(BrokenInput, match=keys[2]):
        found.read(2)
    with pytest.raises(BrokenInput, match="No such folder"):
        karpathy(path, root=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"images": []}', "is not in Karpathy's form"),
        ('{"images": [{"filename": "a.jpg", "split": "train"}]}', "is not in Karpathy's form"),
        (
            '{"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"tokens": []}]}]}',
            "'raw' of image 0 is malformed",
        ),
        (
            '{"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": " "}]}]}',
            "a.jpg has no captions",
        ),
        ('{"images": [{"filename": "a", "split": "dev", "sentences": []}]}', "has no pictures"),
    ],
)
def test_karpathy_files_that_are_not_right(tmp_path, content, message):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(BrokenInput, match=message):
        karpathy(tmp_path / "d.json")
    with pytest.raises(BrokenInput, match="No such file"):
        karpathy(tmp_path / "missing.json")


def test_cocos_official_captions(coco):
    path = coco / "annotations" / "captions_val2014.json"
    found = official(path, protocol="clip-benchmark")
    assert len(found) == 15
    first = karpathy(coco / "dataset_coco.json", split="test", protocol="clip-benchmark")
    place = found.keys.index(first.keys[0].removeprefix("val2014/"))
    assert sorted(found.captions[place]) == sorted(first.captions[0])
    assert found.read(place).tobytes() == first.read(0).tobytes()
    assert len(official(path, root=str(coco / "val2014"))) == 15
    assert max(map(len, found.captions)) == 7
    five = official(path)
    assert {len(texts) for texts in five.captions} == {5}
    parts = [official(path, hold_out=0.4, split=s) for s in ("train", "validation")]
    assert sorted(parts[0].keys + parts[1].keys) == sorted(found.keys)
    with pytest.raises(BrokenInput, match=r"15 of 15 pictures are missing"):
        official(path, root=str(coco / "train2014"))


def test_official_pictures_without_a_caption_are_left_out_and_counted(tmp_path):
    root = trees.coco(tmp_path / "coco")
    path = root / "annotations" / "captions_train2014.json"
    content = json.loads(path.read_text())
    gone, name = content["images"][1]["id"], content["images"][1]["file_name"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != gone]
    path.write_text(json.dumps(content))
    found = official(path)
    assert len(found) == 4
    assert found.left_out == {"without caption": [name]}
    content["annotations"][0]["image_id"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(BrokenInput, match=": 7 is missing or malformed"):
        official(path)
    path.write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(BrokenInput, match="not a COCO captions file"):
        official(path)


KAGGLE = """\
image_name| comment_number| comment
1000092795.jpg| 0| Two young guys , one "tall" , look at their hands .
1000092795.jpg| 1| "Two" men in green shirts are standing in a yard .
2199200615.jpg| 0| A dog runs in a field .
2199200615.jpg| 4   A dog runs across the grass .
"""


def test_kaggles_table_with_its_broken_line(tmp_path):
    (tmp_path / "results.csv").write_text(KAGGLE)
    values = {"source": "table", "path": str(tmp_path / "results.csv"), "task": "captions"}
    values |= {"image_column": "image_name", "text_column": "comment", "delimiter": "|"}
    with pytest.raises(
        BrokenInput, match=r"results.csv:5: a needed cell is empty(?s:.*)broken_rows"
    ):
        open_data(TableData(**values))
    found = open_data(TableData(**values, broken_rows=1))
    assert found.keys == ["1000092795.jpg", "2199200615.jpg"]
    assert found.captions[0] == [
        'Two young guys , one "tall" , look at their hands .',
        '"Two" men in green shirts are standing in a yard .',
    ]
    assert found.captions[1] == ["A dog runs in a field ."]
    (row,) = found.left_out["broken row"]
    assert "results.csv:5" in row


def test_a_text_with_commas_and_no_quotes_is_not_cut(tmp_path):
    (tmp_path / "t.csv").write_text("filepath,title\na.png,one\nb.png,red, green\nc.png,x,\n")
    table = TableData(source="table", path=str(tmp_path / "t.csv"), task="captions")
    with pytest.raises(BrokenInput, match="t.csv:3: more cells than columns"):
        open_data(table)
    assert len(open_data(table.model_copy(update={"broken_rows": 1}))) == 2
