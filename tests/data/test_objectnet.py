"""ObjectNet from a miniature of its archive, by both protocols."""

import json

import imagenet_tree as tree
import pytest

from radapter import recipe as recipes
from radapter.data import open_data
from radapter.data.sources.imagenet import class_names
from radapter.data.sources.objectnet import ObjectNetData
from radapter.errors import BrokenInput, UsageError

# The overlapping classes in the order of their folders: (folder, own name, ImageNet classes).
CLASSES = [
    ("alarm_clock", "alarm clock", [409, 530]),
    ("dress", "dress", [578]),
    ("drying_rack_for_dishes", "drying rack for plates", [729]),
    ("full_sized_towel", "bath towel", [434]),
]


def opened(data, **values):
    return open_data(ObjectNetData(source="objectnet", data_root=str(data), **values))


@pytest.fixture
def mini(tmp_path):
    tree.fill_objectnet(tmp_path / "objectnet-1.0", each=2)
    return tmp_path


def change(root, name, content):
    path = root / "objectnet-1.0" / "mappings" / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_wise_ft(mini):
    """ImageNet's names, an answer for each class of ObjectNet's, and no crop: the code that the
    protocol is named after makes its test set before it sets the preprocessing that crops."""
    dataset = opened(mini)
    assert dataset.class_names == class_names()
    assert dataset.answers == [numbers for _, _, numbers in CLASSES]
    assert dataset.labels == [numbers[0] for _, _, numbers in CLASSES for _ in range(2)]
    assert [key.split("/")[0] for key in dataset.keys] == [c[0] for c in CLASSES for _ in range(2)]
    assert dataset.read(0).size == (tree.SIZE, tree.SIZE)
    assert dataset.protocol["objectnet"] == "wise-ft"
    assert dataset.protocol["crop"] == "none"


def test_wise_ft_cropped(mini):
    """The same, with what that code means to cut off."""
    dataset, whole = opened(mini, protocol="wise-ft-cropped"), opened(mini)
    assert dataset.class_names == whole.class_names
    assert (dataset.answers, dataset.labels) == (whole.answers, whole.labels)
    assert dataset.read(0).size == (tree.SIZE - 4, tree.SIZE - 4)
    assert dataset.protocol["objectnet"] == "wise-ft-cropped"
    assert dataset.protocol["crop"] == "2 pixels on each side"


def test_clip_benchmark(mini):
    """Its own names, and the picture with its border."""
    dataset = opened(mini, protocol="clip-benchmark")
    assert dataset.class_names == [name for _, name, _ in CLASSES]
    assert dataset.labels == [0, 0, 1, 1, 2, 2, 3, 3]
    assert dataset.answers == [[0], [1], [2], [3]]
    assert dataset.read(0).size == (tree.SIZE, tree.SIZE)
    assert dataset.fingerprint() != opened(mini).fingerprint()


def test_the_border_is_gone(mini):
    """Every pixel left by `wise-ft-cropped` has the colour that is inside of the red frame."""
    inside = tree.colour(7)
    assert opened(mini, protocol="wise-ft-cropped").read(0).getcolors() == [
        ((tree.SIZE - 4) ** 2, inside)
    ]
    kept = {c: n for n, c in opened(mini, protocol="clip-benchmark").read(0).getcolors()}
    assert kept == {tree.RED: 4 * (tree.SIZE - 1), inside: (tree.SIZE - 2) ** 2}


def test_a_picture_that_is_all_border(mini):
    (path, *_) = (mini / "objectnet-1.0" / "images" / "alarm_clock").iterdir()
    tree.picture(path, tree.RED, size=4)
    dataset = opened(mini, protocol="wise-ft-cropped")
    with pytest.raises(BrokenInput, match="too small"):
        dataset.read(dataset.keys.index(f"alarm_clock/{path.name}"))


@pytest.mark.parametrize("folder", ["objectnet", "objectnet/objectnet-1.0", "here"])
def test_other_places(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    tree.fill_objectnet(tmp_path / folder)
    assert len(opened(tmp_path, root="here" if folder == "here" else None)) == 4


def test_mappings_that_are_not_the_published_ones(mini):
    lines = mini / "objectnet-1.0" / "mappings" / "imagenet_to_label_2012_v2"
    text = lines.read_text()
    lines.write_text(text.replace("gown", "plate rack", 1))
    with pytest.raises(BrokenInput, match="class 578 is 'plate rack', but it is 'gown'"):
        opened(mini)
    lines.write_text("kit fox, Vulpes macrotis\n")  # cut short
    with pytest.raises(BrokenInput, match="class 409 is 'None'"):
        opened(mini)
    lines.unlink()
    assert len(opened(mini)) == 8  # timm's list is enough
    change(mini, "objectnet_to_imagenet_1k.json", {"Dress": "gown; dress"})
    with pytest.raises(BrokenInput, match=r"'Dress' \(gown; dress\) has no folder, is not an"):
        opened(mini)
    change(mini, "objectnet_to_imagenet_1k.json", {"Dress": "gown", "Bath towel": "gown"})
    with pytest.raises(BrokenInput, match="or names a class that another"):
        opened(mini)
    change(mini, "objectnet_to_imagenet_1k.json", "[")
    with pytest.raises(BrokenInput, match="objectnet_to_imagenet_1k.json is damaged"):
        opened(mini)
    (mini / "objectnet-1.0" / "mappings" / "folder_to_objectnet_label.json").unlink()
    with pytest.raises(BrokenInput, match="it comes with ObjectNet's archive"):
        opened(mini)


def test_an_archive_without_pictures_or_mappings(tmp_path):
    (tmp_path / "objectnet-1.0" / "images").mkdir(parents=True)
    with pytest.raises(BrokenInput, match="has no folder mappings"):
        opened(tmp_path)
    with pytest.raises(BrokenInput, match="ObjectNet is not under"):
        opened(tmp_path / "elsewhere")


def test_it_is_never_trained_on(tiny_folder):
    text = f"name: no\nmodel: {tiny_folder}\nmethod: {{name: r-adapter}}\n"
    with pytest.raises(UsageError, match="ObjectNet's licence allows testing only"):
        recipes.parse(text + "data: {source: objectnet}\n")
