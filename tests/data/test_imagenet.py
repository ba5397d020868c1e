"""ImageNet and its shifts, read from miniatures of the layouts in which they are published."""

import hashlib
import sys
import types

import imagenet_tree as tree
import numpy as np
import pytest
from pydantic import ValidationError

from radapter.data import open_data
from radapter.data.sources import imagenet
from radapter.data.sources.imagenet import ImageNetData, class_names, subset, synsets
from radapter.errors import BrokenInput, MissingDependency


def opened(data, variant, **values):
    where = {"data_root": str(data), "variant": variant}
    return open_data(ImageNetData(source="imagenet", **where, **values))


def near(dataset, i, label):
    """Whether the picture at i is the one that was drawn for a class."""
    pixel = dataset.read(i).getpixel((tree.SIZE // 2, tree.SIZE // 2))
    return max(abs(a - b) for a, b in zip(pixel, tree.colour(label), strict=True)) < 8


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_the_lists_are_the_published_ones():
    """Counts, order and hashes of the lists that timm and open_clip ship."""
    assert (len(synsets()), len(set(synsets())), len(class_names())) == (1000, 1000, 1000)
    assert list(synsets()) == sorted(synsets())
    assert digest(synsets()) == "385e0240499426c0"
    assert digest(class_names()) == "571ae1c583b4be7d"
    assert (len(subset("a")), len(subset("r")), len(subset("sketch"))) == (200, 200, 1000)
    assert digest(synsets()[i] for i in subset("a")) == "f6aa4b23244554d9"
    assert digest(synsets()[i] for i in subset("r")) == "e19a59d84e3746fa"
    # Facts known of them from elsewhere: -R has one of the two classes called missile, -A neither.
    assert [i for i in (657, 744) if i in subset("r")] == [657]
    assert not {657, 744} & set(subset("a"))
    assert class_names()[657] == class_names()[744] == "missile"
    assert (imagenet.lemmas()[409], imagenet.lemmas()[281]) == ("analog clock", "tabby, tabby cat")


@pytest.mark.parametrize(
    ("variant", "folder"), [(v, f) for v, folders in imagenet.USUAL.items() for f in folders]
)
def test_every_usual_folder_is_found(tmp_path, variant, folder):
    labels = subset(variant)[3:5]
    tree.fill(tmp_path / folder, variant, labels, each=2, numbered=variant == "v2")
    dataset = opened(tmp_path, variant)
    assert dataset.labels == [labels[0]] * 2 + [labels[1]] * 2
    assert all(near(dataset, i, label) for i, label in enumerate(dataset.labels))
    assert dataset.class_names == class_names()
    assert [group for (group,) in dataset.answers] == list(subset(variant))
    assert len(dataset.groups) == len(set(dataset.groups)) == 4


def test_a_folder_of_another_name(tmp_path):
    tree.fill(tmp_path / "mine" / "here", "sketch", [5])
    assert opened(tmp_path, "sketch", root="mine/here").labels == [5]
    with pytest.raises(BrokenInput, match=r"ImageNet-Sketch is not at .*there: no such folder"):
        opened(tmp_path, "sketch", root="there")
    with pytest.raises(BrokenInput, match="usual folders: imagenet-r, imagenet-rendition/"):
        opened(tmp_path, "r")


def test_v2_folders_are_numbers_and_sort_as_numbers(tmp_path):
    """As text 10 and 100 come before 2, which shifts nearly every label by hundreds."""
    labels = [0, 1, 2, 9, 10, 11, 99, 100, 101, 999]
    tree.fill(tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val", "v2", labels,
              numbered=True)  # fmt: skip
    dataset = opened(tmp_path, "v2")
    assert dataset.labels == labels
    assert all(near(dataset, i, label) for i, label in enumerate(labels))


def test_the_second_archive_of_v2_has_wordnet_ids(tmp_path):
    root = tmp_path / "ImageNetV2-matched-frequency"
    tree.fill(root, "v2", [3, 500])
    assert opened(tmp_path, "v2").labels == [3, 500]
    tree.fill(root, "v2", [7], numbered=True)
    with pytest.raises(
        BrokenInput, match=r"not classes of ImageNet-V2 \(matched frequency\): 7\. "
    ):
        opened(tmp_path, "v2")


@pytest.mark.parametrize("strange", ["1000", "07"])
def test_numbers_that_are_no_class_of_v2(tmp_path, strange):
    root = tree.fill(tmp_path / "ImageNetV2-matched-frequency", "v2", [7], numbered=True)
    tree.picture(root / strange / "a.jpeg", (0, 0, 0))
    with pytest.raises(
        BrokenInput, match=r"not classes of ImageNet-V2.*: 1000\.|two folders of one"
    ):
        opened(tmp_path, "v2")


def test_a_readme_among_the_folders_is_no_class(tmp_path):
    labels = subset("r")[:3]
    root = tree.fill(tmp_path / "imagenet-r", "r", labels)
    assert (root / "README.txt").is_file()
    (root / ".ipynb_checkpoints").mkdir()
    (root / synsets()[labels[0]] / "._art_1.jpg").write_bytes(b"a Macintosh left this")
    assert opened(tmp_path, "r").labels == list(labels)


@pytest.mark.parametrize("variant", ["r", "a"])
def test_a_class_outside_of_the_200_is_refused(tmp_path, variant):
    outside = next(i for i in range(1000) if i not in subset(variant))
    tree.fill(tmp_path / f"imagenet-{variant}", variant, [outside])
    with pytest.raises(
        BrokenInput, match=f"not classes of ImageNet-{variant.upper()}: n.*200 class"
    ):
        opened(tmp_path, variant)


def test_a_folder_without_classes(tmp_path):
    (tmp_path / "sketch").mkdir()
    with pytest.raises(BrokenInput, match="has no class folders such as n01440764"):
        opened(tmp_path, "sketch")
    (tmp_path / "val").mkdir()
    with pytest.raises(BrokenInput, match="or the flat pictures ILSVRC2012_val_"):
        opened(tmp_path, "val")


# ------------------------------------------------------------------ flat validation

VAL = {1: 65, 2: 970, 3: 230, 293: 0, 50000: 355}
"""Number of the picture -> class; the first three and 293 as in the real list"""


def flat(tmp_path, folder):
    return tree.fill_flat(tmp_path / folder, VAL)


def check_val(dataset):
    assert sorted(dataset.labels) == dataset.labels == [0, 65, 230, 355, 970]
    assert all(near(dataset, i, label) for i, label in enumerate(dataset.labels))
    assert dataset.keys[0] == "n01440764/ILSVRC2012_val_00000293.JPEG"


def test_kaggles_flat_layout(tmp_path):
    flat(tmp_path, "ILSVRC/Data/CLS-LOC/val")
    tree.write_kaggle_list(tmp_path / "LOC_val_solution.csv", VAL)
    check_val(opened(tmp_path, "val"))


def test_a_flat_folder_with_tensorflows_list(tmp_path):
    flat(tmp_path, "imagenet/val")
    lines = [synsets()[VAL.get(number, 1)] for number in range(1, 50_001)]
    path = tmp_path / "imagenet" / "imagenet_2012_validation_synset_labels.txt"
    path.write_text("\n".join(lines) + "\n")
    check_val(opened(tmp_path, "val"))
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(BrokenInput, match="has 49999 lines, not one for each of 50,000"):
        opened(tmp_path, "val")


def test_one_set_has_one_fingerprint_in_every_layout(tmp_path):
    flat(tmp_path / "flat", "imagenet/val")
    tree.write_kaggle_list(tmp_path / "flat" / "imagenet" / "LOC_val_solution.csv", VAL)
    for number, label in VAL.items():
        name = tree.FILES["val"].format(n=number)
        tree.picture(
            tmp_path / "b/ILSVRC2012/val_dirs" / synsets()[label] / name, tree.colour(label)
        )
    check_val(opened(tmp_path / "b", "val"))
    one, two = opened(tmp_path / "flat", "val"), opened(tmp_path / "b", "val")
    assert one.fingerprint() == two.fingerprint()
    tree.picture(tmp_path / "b/ILSVRC2012/val_dirs" / two.keys[0], (9, 9, 9), size=50)
    assert one.fingerprint() != two.fingerprint()


def test_the_challenges_own_ids_alone_are_not_taken(tmp_path):
    """Taking 490 for the 490th class is what goes wrong with the devkit's list."""
    root = flat(tmp_path, "imagenet/val")
    with pytest.raises(BrokenInput, match=r"is flat, and no list says the classes .*LOC_val_sol"):
        opened(tmp_path, "val")
    (root.parent / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n171\n")
    with pytest.raises(BrokenInput, match=r"ground_truth.txt is not enough: it holds the chall"):
        opened(tmp_path, "val")


def own_id(label):
    """The challenge's id of a class in the tests: its order is not that of WordNet ids."""
    return 1000 - label


def devkit(tmp_path, change=lambda ids: ids):
    """The devkit beside imagenet/val, and what scipy reads from its meta.mat: 1000 classes and
    groups of them, which have children and ids above 1000."""
    folder = tmp_path / "imagenet" / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    ids = change([own_id(VAL.get(number, 1)) for number in range(1, 50_001)])
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, ids)))
    (folder / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    rows = [(own_id(i), wnid, 0) for i, wnid in enumerate(synsets())] + [(1001, "n00001740", 8)]
    kinds = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "num_children")]
    return folder, np.array(sorted(rows), dtype=kinds)


@pytest.fixture
def scipy_reads(monkeypatch):
    """scipy, which is no dependency, with a `loadmat` that gives these rows."""

    def install(rows):
        io = types.ModuleType("scipy.io")
        io.loadmat = lambda path, squeeze_me: {"synsets": rows}
        monkeypatch.setitem(sys.modules, "scipy", types.ModuleType("scipy"))
        monkeypatch.setitem(sys.modules, "scipy.io", io)

    return install


def test_the_devkits_list_with_its_table(tmp_path, scipy_reads):
    flat(tmp_path, "imagenet/val")
    _, rows = devkit(tmp_path)
    scipy_reads(rows)
    check_val(opened(tmp_path, "val"))
    rows["WNID"][3] = "n00000000"
    with pytest.raises(BrokenInput, match="does not name the 1000 classes of ILSVRC 2012"):
        opened(tmp_path, "val")


def test_a_damaged_devkit(tmp_path, scipy_reads):
    flat(tmp_path, "imagenet/val")
    _, rows = devkit(tmp_path, lambda ids: [1001, *ids[1:]])
    scipy_reads(rows)
    with pytest.raises(BrokenInput, match=r"is incomplete: KeyError\(1001\)"):
        opened(tmp_path, "val")


def test_the_devkits_table_needs_scipy(tmp_path, monkeypatch):
    flat(tmp_path, "imagenet/val")
    devkit(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingDependency, match=r"pip install \"radapter\[devkit\]\""):
        opened(tmp_path, "val")


def test_a_matlab_file_of_scipys(tmp_path):
    io = pytest.importorskip("scipy.io", reason="scipy, of the extra devkit, reads meta.mat")
    flat(tmp_path, "imagenet/val")
    folder, rows = devkit(tmp_path)
    io.savemat(folder / "meta.mat", {"synsets": rows[:, None]})
    check_val(opened(tmp_path, "val"))


def test_a_sorted_copy_is_taken_before_the_flat_one(tmp_path):
    """WiSE-FT keeps both: imagenet/val as it came, imagenet/val_in_folder."""
    flat(tmp_path, "imagenet/val")
    tree.fill(tmp_path / "imagenet" / "val_in_folder", "val", [4])
    assert opened(tmp_path, "val").labels == [4]


def test_lists_that_do_not_fit(tmp_path):
    root = flat(tmp_path, "imagenet/val")
    path = root / "LOC_val_solution.csv"
    tree.write_kaggle_list(path, {k: v for k, v in VAL.items() if k > 2})
    with pytest.raises(BrokenInput, match=r"no class for pictures .*00001.JPEG, .*00002.JPEG\."):
        opened(tmp_path, "val")
    path.write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4 n9 1 2 3 4\n"
    )
    with pytest.raises(BrokenInput, match="ILSVRC2012_val_00000001 has 2 classes, not one"):
        opened(tmp_path, "val")
    path.write_text("image,label\na,b\n")
    with pytest.raises(BrokenInput, match="its columns are ImageId,PredictionString"):
        opened(tmp_path, "val")


# ------------------------------------------------------------------ shots


def test_shots_are_a_fixed_draw(tmp_path):
    tree.fill(tmp_path / "train", "train", [0, 4], each=9)
    drawn = opened(tmp_path, "train", shots=3)
    assert drawn.labels == [0, 0, 0, 4, 4, 4]
    assert all(near(drawn, i, label) for i, label in enumerate(drawn.labels))
    # The rule, computed again: the smallest hashes of "seed/wnid/name".
    whole = opened(tmp_path, "train")
    ranked = sorted(whole.keys[:9], key=lambda k: hashlib.sha256(f"0/{k}".encode()).hexdigest())
    assert set(drawn.keys[:3]) == set(ranked[:3])
    assert drawn.keys == opened(tmp_path, "train", shots=3).keys
    assert drawn.keys != opened(tmp_path, "train", shots=3, shots_seed=1).keys
    assert set(drawn.keys) < set(opened(tmp_path, "train", shots=4).keys)
    tree.fill(tmp_path / "train", "train", [2], each=9)  # another class changes nothing
    assert [k for k in opened(tmp_path, "train", shots=3).keys if k in drawn.keys] == drawn.keys
    with pytest.raises(BrokenInput, match="classes of fewer than 10 pictures: n01440764, "):
        opened(tmp_path, "train", shots=10)


def test_shots_are_drawn_from_what_is_not_held_out(tmp_path):
    tree.fill(tmp_path / "train", "train", [0, 4], each=20)
    drawn = opened(tmp_path, "train", shots=5, hold_out=0.4)
    held = opened(tmp_path, "train", shots=5, hold_out=0.4, split="validation")
    assert len(drawn) == 10
    assert len(held) > 5
    assert not set(drawn.keys) & set(held.keys)


def test_shots_are_of_the_training_set():
    with pytest.raises(ValidationError, match="shots draws from `variant: train` only"):
        ImageNetData(source="imagenet", variant="val", shots=4)
