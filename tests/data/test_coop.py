"""CoOp's eleven sets, read from miniatures in the layout of its DATASETS.md."""

import json
import random

import coop_tree as tree
import imagenet_tree
import pytest
from pydantic import ValidationError

from radapter import recipe as recipes
from radapter.data import open_data
from radapter.data.sources import imagenet
from radapter.data.sources.coop import LAYOUTS, CoopData, draw
from radapter.data.sources.imagenet import ImageNetData, synsets
from radapter.errors import BrokenInput, UsageError

SPLITS = {"train": "train", "validation": "val", "test": "test"}
NAMES = {  # of the prompts: those of the split files, without underscores
    "caltech101": ["face", "leopard", "motorbike", "accordion", "airplane"],
    "eurosat": [
        "Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road",
        "Industrial Buildings",
    ],
    "fgvc_aircraft": ["707-320", "Cessna 172", "DH-82", "Global Express", "Yak-42"],
    "food101": ["apple pie", "baby back ribs", "baklava", "beef carpaccio", "waffles"],
    "oxford_pets": ["abyssinian", "american bulldog", "basset hound", "bengal", "birman"],
    "sun397": ["abbey", "airplane cabin", "indoor apse", "outdoor bazaar", "youth hostel"],
}  # fmt: skip
RELEASE = {  # names, in their alphabetical order, and the labels of the split file in that order
    "caltech101": (["Faces", "Leopards", "Motorbikes", "accordion", "airplanes"], [0, 1, 2, 3, 4]),
    "food101": (
        ["apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", "waffles"], [0, 1, 2, 3, 4],
    ),
    "oxford_pets": (
        ["abyssinian", "american_bulldog", "basset_hound", "bengal", "birman"], [0, 1, 2, 3, 4],
    ),
    "eurosat": (
        ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"],
        [0, 1, 2, 3, 4],
    ),
    "stanford_cars": (
        [
            "2000 AM General Hummer SUV", "2001 Acura Integra Type R", "2008 Acura TL Type-S",
            "2012 Acura RL Sedan", "2012 Acura TSX Sedan",
        ],
        [0, 4, 2, 1, 3],
    ),
    "sun397": (
        ["abbey", "airplane_cabin", "apse_indoor", "bazaar_outdoor", "youth_hostel"],
        [0, 1, 2, 3, 4],
    ),
    "ucf101": (
        ["Apply_Eye_Makeup", "Archery", "Baby_Crawling", "YoYo_Other", "Yo_Yo"], [0, 1, 2, 4, 3],
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """All eleven, for reading only."""
    return tree.fill_all(tmp_path_factory.mktemp("coop"))


def opened(data, dataset, split="train", **values):
    where = {"data_root": str(data), "dataset": dataset, "split": split}
    return open_data(CoopData(source="coop", **where, **values))


def pixel_is(dataset, i, label):
    pixel = dataset.read(i).getpixel((imagenet_tree.SIZE // 2, imagenet_tree.SIZE // 2))
    return max(abs(a - b) for a, b in zip(pixel, tree.colour(label), strict=True)) < 8


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dataset", tree.SETS)
def test_a_set_is_read_as_it_is_published(data, dataset, split):
    found = opened(data, dataset, split)
    expected = tree.rows(dataset)[SPLITS[split]]
    assert found.keys == [path for path, _, _ in expected]
    assert found.labels == [label for _, label, _ in expected]
    assert all(pixel_is(found, i, label) for i, label in enumerate(found.labels))
    names = list(tree.SETS[dataset][3].values())
    assert found.class_names == NAMES.get(dataset, [n.replace("_", " ") for n in names])
    assert found.answers == [[i] for i in range(5)]
    assert found.protocol["protocol"].startswith("coop: ")
    assert found.fingerprint() == opened(data, dataset, split).fingerprint()


def test_imagenet_is_tested_on_its_validation_pictures_with_names_of_coop(data):
    test, train = opened(data, "imagenet", "test"), opened(data, "imagenet")
    assert test.labels == [c for c in tree.IMAGENET_CLASSES for _ in range(2)]
    assert train.labels == [c for c in tree.IMAGENET_CLASSES for _ in range(6)]
    assert test.class_names == [f"coop's {name}" for name in imagenet.class_names()]
    assert test.keys[0] == f"{synsets()[0]}/ILSVRC2012_val_00000001.JPEG"
    assert all(pixel_is(test, i, label) for i, label in enumerate(test.labels))
    assert len(test.answers) == 1000


@pytest.mark.parametrize("protocol", ["coop", "radapter-release"])
@pytest.mark.parametrize("dataset", tree.SETS)
def test_halves_are_disjoint_and_numbered_from_0(data, dataset, protocol):
    every, base, novel = (
        opened(data, dataset, "test", classes=classes, protocol=protocol)
        for classes in ("all", "base", "novel")
    )
    assert base.class_names == every.class_names[:3]  # of five
    assert novel.class_names == every.class_names[3:]
    assert (set(base.labels), set(novel.labels)) == ({0, 1, 2}, {0, 1})
    assert (len(base.answers), len(novel.answers)) == (3, 2)
    label = dict(zip(every.keys, every.labels, strict=True))
    assert [label[key] for key in base.keys] == base.labels
    assert [label[key] - 3 for key in novel.keys] == novel.labels
    assert sorted([*base.keys, *novel.keys]) == sorted(every.keys)
    colour_of = dict(zip(every.keys, [i for _, i, _ in tree.rows(dataset)["test"]], strict=True))
    assert all(pixel_is(novel, i, colour_of[key]) for i, key in enumerate(novel.keys))
    assert not set(base.groups) & set(novel.groups)
    assert len({part.fingerprint() for part in (every, base, novel)}) == 3


def test_halves_of_imagenet(data):
    base, novel = (opened(data, "imagenet", "test", classes=c) for c in ("base", "novel"))
    assert (len(base.class_names), len(novel.class_names)) == (500, 500)
    assert base.labels == [0, 0, 1, 1, 2, 2]
    assert novel.labels == [0, 0, 157, 157, 499, 499]
    assert novel.class_names[157] == "coop's missile"


@pytest.mark.parametrize("dataset", RELEASE)
def test_the_release_has_folder_names_in_alphabetical_order(data, dataset):
    names, labels = RELEASE[dataset]
    found = opened(data, dataset, "test", protocol="radapter-release")
    assert found.class_names == names
    expected = [labels.index(label) for _, label, _ in tree.rows(dataset)["test"]]
    assert found.labels == expected
    assert found.protocol["protocol"].startswith("radapter-release: ")


def test_the_release_has_names_of_open_clip_for_imagenet(data, tmp_path):
    found = opened(data, "imagenet", "test", protocol="radapter-release")
    assert found.class_names == imagenet.class_names()
    assert found.labels == opened(data, "imagenet", "test").labels


def test_templates_are_those_of_set_and_protocol():
    for dataset, layout in LAYOUTS.items():
        settings = {"source": "coop", "dataset": dataset}
        assert CoopData(**settings).prompts() == [layout.template]
        assert CoopData(**settings, protocol="radapter-release").prompts() == "openai"
        assert CoopData(**settings, templates=["{}"]).prompts() == ["{}"]
    assert set(LAYOUTS) == set(tree.ALL)
    with pytest.raises(ValidationError, match="exactly one {}"):
        CoopData(source="coop", dataset="dtd", templates=["a photo"])


# ------------------------------------------------------------------ shots


def coop_draw(rows, shots, seed):
    """What CoOp's code does: the module's generator, seeded; a sample for each label."""
    random.seed(seed)
    drawn = {}
    for split, each in (("train", shots), ("val", min(shots, 4))):
        labels = list(dict.fromkeys(label for _, label, _ in rows[split]))
        drawn[split] = []
        for label in labels:
            items = [path for path, own, _ in rows[split] if own == label]
            drawn[split] += random.sample(items, each) if len(items) >= each else items
    return drawn


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 5])
@pytest.mark.parametrize("dataset", ["dtd", "fgvc_aircraft", "oxford_pets"])
def test_shots_are_the_draw_of_coop(data, dataset, shots, seed):
    expected = coop_draw(tree.rows(dataset), shots, seed)
    settings = {"shots": shots, "shots_seed": seed}
    train = opened(data, dataset, **settings)
    assert train.keys == expected["train"]
    assert [train.labels.count(label) for label in range(5)] == [shots] * 5
    assert opened(data, dataset, "validation", **settings).keys == expected["val"]
    # All classes are drawn before any are left out, so halves have the same pictures.
    base, novel = (opened(data, dataset, classes=c, **settings).keys for c in ("base", "novel"))
    assert sorted([*base, *novel]) == sorted(train.keys)
    assert train.protocol["shots"] == f"{shots} a class, seed {seed}"


def test_the_draw_is_the_same_on_every_platform():
    """Of 40 and 30 pictures a class, as SUN397's and UCF101's lists are long; pinned."""
    rows = [(f"{label}/{i}", label) for label in (1, 0) for i in range(30 + 10 * label)]
    found = {
        seed: [path for path, _ in draw({"train": rows, "validation": []}, 2, seed)["train"]]
        for seed in (1, 2, 3)
    }
    assert found == {
        1: ["1/8", "1/36", "0/27", "0/25"],
        2: ["1/3", "1/5", "0/2", "0/11"],
        3: ["1/15", "1/37", "0/17", "0/4"],
    }
    (many,) = {len(draw({"train": rows, "validation": []}, 16, s)["train"]) for s in (1, 2, 3)}
    assert many == 32


def test_a_class_of_fewer_pictures_gives_all(data):
    assert len(opened(data, "dtd", shots=16)) == 5 * tree.EACH["train"]


def test_shots_of_imagenet_are_the_draw_of_its_own_source(data):
    described = ImageNetData(source="imagenet", shots=4, shots_seed=2, data_root=str(data))
    few = {"shots": 4, "shots_seed": 2}
    train = opened(data, "imagenet", **few)
    assert train.keys == open_data(described).keys
    base = opened(data, "imagenet", classes="base", **few)
    assert base.keys == [k for k, n in zip(train.keys, train.labels, strict=True) if n < 500]
    # CoOp has no validation pictures: they are the next ones of the draw, as far as they go.
    with pytest.raises(BrokenInput, match="fewer than 8 pictures"):
        opened(data, "imagenet", "validation", **few)
    held = opened(data, "imagenet", "validation", shots=3, shots_seed=2)
    assert not set(held.keys) & set(opened(data, "imagenet", shots=3, shots_seed=2).keys)
    assert held.labels == [c for c in tree.IMAGENET_CLASSES for _ in range(3)]
    with pytest.raises(UsageError, match="has no validation split: give data.shots"):
        opened(data, "imagenet", "validation")


def test_one_seed_is_a_whole_run():
    text = "{name: x, model: m, method: {name: lora}, data: {source: coop, dataset: dtd%s}%s}"
    assert recipes.parse(text % ("", ", seed: 3")).data.shots_seed == 3
    assert recipes.parse(text % ("", ""), overrides=["seed=2"]).data.shots_seed == 2
    assert recipes.parse(text % (", shots_seed: 1", ", seed: 3")).data.shots_seed == 1
    assert recipes.parse(text % ("", "")).data.shots_seed == 1
    found = recipes.parse(text % ("", ", seed: 3"))
    assert recipes.parse(recipes.dump(found)) == found
    with pytest.raises(UsageError, match=r"^recipe:1:\d+: seed: "):
        recipes.parse(text % ("", ", seed: -3"))
    with pytest.raises(UsageError, match="data.dataset: input should be 'caltech101', "):
        recipes.parse(text.replace("dtd", "dtds") % ("", ""))


def test_shots_are_not_drawn_from_test():
    with pytest.raises(ValidationError, match="not test"):
        CoopData(source="coop", dataset="dtd", split="test", shots=1)


# ------------------------------------------------------------------ what is wrong


@pytest.fixture
def own(tmp_path):
    """`own("dtd")` -> its folder under the data root, to be damaged."""
    return lambda dataset: tree.fill(tmp_path, dataset)


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(BrokenInput, match="DescribableTextures is not under .*folders: dtd"):
        opened(tmp_path, "dtd")
    with pytest.raises(BrokenInput, match=r"UCF101 is not at .*other: no such folder"):
        opened(tmp_path, "ucf101", root="other")


def test_a_root_of_its_own(own, tmp_path):
    own("eurosat").rename(tmp_path / "elsewhere")
    own("imagenet").rename(tmp_path / "ilsvrc")
    assert len(opened(tmp_path, "eurosat", "test", root="elsewhere")) == 10
    assert len(opened(tmp_path, "imagenet", "test", root="ilsvrc")) == 12


@pytest.mark.parametrize("dataset", [name for name, facts in tree.SETS.items() if facts[2]])
def test_a_split_file_that_is_not_there(own, tmp_path, dataset):
    path = own(dataset) / tree.SETS[dataset][2]
    path.unlink()
    with pytest.raises(BrokenInput) as caught:
        opened(tmp_path, dataset)
    assert str(caught.value) == (
        f"No such file: {path}. It is linked from "
        "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md."
    )


@pytest.mark.parametrize("name", ["variants.txt", "images_variant_val.txt"])
def test_a_list_of_aircraft_that_is_not_there(own, tmp_path, name):
    (own("fgvc_aircraft") / name).unlink()
    with pytest.raises(BrokenInput, match=f"{name}. FGVCAircraft's own archive has it"):
        opened(tmp_path, "fgvc_aircraft")


def test_pictures_that_are_not_there(own, tmp_path):
    root = own("dtd")
    lost = [path for path, _, _ in tree.rows("dtd")["test"]]
    for path in lost[1:5]:
        (root / "images" / path).unlink()
    (root / "images" / "bubbly").rename(root / "images" / "Bubbly")
    with pytest.raises(BrokenInput) as caught:
        opened(tmp_path, "dtd", "test")
    assert f"6 of 10 pictures of DescribableTextures's split are not in {root}/images: " in (
        str(caught.value)
    )
    assert f"{', '.join(lost[1:4])} and 3 more." in str(caught.value)
    (root / "images").rename(root / "pictures")
    with pytest.raises(BrokenInput, match=f"no pictures at {root}/images: no such folder"):
        opened(tmp_path, "dtd")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a split of CoOp's: it has lists train, val and test of rows"),
        ("{", "is not a split of CoOp's"),
        ({"train": [["a/b.jpg", 0]], "val": [], "test": []}, "is not a split of CoOp's"),
        ({"train": [["a/b.jpg", "x", "a"]], "val": [], "test": []}, "is not a split of CoOp's"),
        ({"train": [["a/b.jpg", 0, "a"]], "val": []}, "is not a split of CoOp's"),
        (
            {"train": [["a/b.jpg", 0, "a"]], "val": [["a/c.jpg", 0, "b"]], "test": []},
            "label 0 is both 'a' and 'b'",
        ),
        ({"train": [["a/b.jpg", 1, "a"]], "val": [], "test": []}, "its 1 labels are not 0 to 0"),
    ],
)
def test_a_split_file_of_another_form(own, tmp_path, content, message):
    path = own("food101") / "split_zhou_Food101.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BrokenInput, match=message) as caught:
        opened(tmp_path, "food101")
    assert str(path) in str(caught.value)


def test_lists_that_do_not_fit_each_other(own, tmp_path):
    (own("fgvc_aircraft") / "variants.txt").write_text("707-320\n")
    with pytest.raises(BrokenInput, match=r"'DH-82' of \d+ is not in variants.txt"):
        opened(tmp_path, "fgvc_aircraft")
    names = own("imagenet") / "classnames.txt"
    names.write_text("\n".join(names.read_text().splitlines()[1:]))
    with pytest.raises(BrokenInput, match="names 999 classes, without n01440764 of the 1000"):
        opened(tmp_path, "imagenet")
    names.unlink()
    with pytest.raises(BrokenInput, match=r"No such file: .*classnames.txt. It is linked from"):
        opened(tmp_path, "imagenet")
    assert opened(tmp_path, "imagenet", protocol="radapter-release")


def test_a_class_in_two_folders(own, tmp_path):
    path = own("dtd") / "split_zhou_DescribableTextures.json"
    content = json.loads(path.read_text())
    content["train"][0][0] = content["test"][-1][0]
    path.write_text(json.dumps(content))
    assert opened(tmp_path, "dtd")
    with pytest.raises(BrokenInput, match="lies in two folders"):
        opened(tmp_path, "dtd", protocol="radapter-release")
