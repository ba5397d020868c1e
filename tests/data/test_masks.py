"""VOC, Pascal-Context and ADE20K in their layouts, in miniature, and masks that are wrong."""

import numpy as np
import pytest
import trees
from PIL import Image

from radapter import models
from radapter.data import open_data
from radapter.data.settings import MissingData
from radapter.data.sources.masks import CONTEXT, VOC, MasksData
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.checking import check
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite, load_suite
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.runtimes.opened import from_loaded


@pytest.fixture
def root(tmp_path):
    trees.masks(tmp_path)
    return tmp_path


def settings(folder, **more):
    return MasksData(source="masks", data_root=str(folder), **more)


@pytest.mark.parametrize(
    ("more", "zero", "classes", "fifth"),
    [
        ({"dataset": "voc"}, 0, 20, "bottle"),
        ({"dataset": "pascal-context"}, -1, 59, "bench"),
        ({"dataset": "pascal-context", "protocol": "60"}, 0, 59, "bench"),
        ({"dataset": "ade20k"}, -1, 150, "thing 5"),
    ],
)
def test_masks_are_class_numbers_and_what_is_0_is_by_the_set(root, more, zero, classes, fifth):
    dataset = open_data(settings(root, **more))
    assert (len(dataset), len(dataset.class_names)) == (4, classes)
    mask = dataset.mask(2)
    assert mask.shape == (40, 48)
    assert (mask[0] == zero).all()
    assert (mask[-1] == -1).all()
    assert [mask[5, 5], mask[5, 40]] == [1, 5]
    assert dataset.class_names[4] == fifth


def test_the_published_names():
    assert (len(set(VOC)), len(set(CONTEXT))) == (20, 59)
    assert list(VOC) == sorted(VOC)
    assert list(CONTEXT) == sorted(CONTEXT)


def own(root):
    (root / "names.txt").write_text("sea\nland\nair\nfire\nice\n")
    return {"root": "VOCdevkit/VOC2012", "pictures": "JPEGImages", "masks": "SegmentationClass",
            "names_file": "../../names.txt"}  # fmt: skip


def test_a_set_of_ones_own_with_regions(root, tiny_folder):
    more = own(root) | {"regions": "regions"}
    for i in range(4):
        (root / "regions" / f"2007_00{i}").mkdir(parents=True)
        half = np.zeros((40, 48), np.uint8)
        half[:, :24] = 255
        for number, region in enumerate((half, 255 - half)):
            Image.fromarray(region).save(root / "regions" / f"2007_00{i}" / f"{number}.png")
    dataset = open_data(settings(root, **more))
    assert dataset.class_names == ["sea", "land", "air", "fire", "ice"]
    assert [r.sum() for r in dataset.regions(0)] == [960, 960]
    described = SuiteDataset(name="own", role="zero-shot", data=settings(root, **more),
                             dense={"by": "regions"})  # fmt: skip
    suite = Suite(name="mine", tasks=["segmentation"], datasets=[described])
    found = evaluate(suite, from_loaded(models.load(tiny_folder))).sets["own"]
    assert list(found.metrics) == ["miou", "miou_background", "pixel_accuracy"]
    # Each half has one class or another, so all of a half is right or none is.
    assert found.value("pixel_accuracy") * 8 == pytest.approx(
        round(found.value("pixel_accuracy") * 8)
    )


def test_wrong_masks_are_named(root, tiny_folder):
    data = settings(root, **own(root))
    folder = root / "VOCdevkit/VOC2012/SegmentationClass"
    described = SuiteDataset(name="own", role="zero-shot", data=data)
    suite = Suite(name="mine", tasks=["segmentation"], datasets=[described])
    Image.new("L", (40, 48)).save(folder / "2007_001.png")
    with pytest.raises(BrokenInput, match="mask of 2007_001 has 40 x 48 pixels, .* 48 x 40"):
        evaluate(suite, from_loaded(models.load(tiny_folder)))
    assert "mask of 2007_001 has 40 x 48" in check(suite)["own"]["findings"][0]
    Image.new("L", (48, 40), 6).save(folder / "2007_001.png")
    with pytest.raises(BrokenInput, match="2007_001.png has the class number 6, .* 5 classes"):
        open_data(data).mask(1)
    Image.new("RGB", (48, 40)).save(folder / "2007_001.png")
    with pytest.raises(BrokenInput, match=r"2007_001.png is in colours \(RGB\)"):
        open_data(data).mask(1)
    (folder / "2007_001.png").write_bytes(b"")
    with pytest.raises(BrokenInput, match=r"2007_001.png cannot be read"):
        open_data(data).mask(1)
    regions = SuiteDataset(name="own", role="zero-shot", data=data, dense={"by": "regions"})
    with pytest.raises(UsageError, match="has no regions"):
        Suite(name="mine", tasks=["segmentation"], datasets=[regions]).open()
    with pytest.raises(MissingData, match="no such folder|in any of its usual folders"):
        open_data(settings(root / "empty", dataset="voc"))
    (folder / "2007_002.png").unlink()
    with pytest.raises(BrokenInput, match="2007_002: no such picture or mask"):
        open_data(settings(root, dataset="voc"))


def test_the_suite_opens_all_three(root, monkeypatch):
    monkeypatch.setenv("RADAPTER_DATA", str(root))
    found = load_suite("segmentation").open()
    assert {len(tasks["segmentation"]) for tasks in found.values()} == {4}
