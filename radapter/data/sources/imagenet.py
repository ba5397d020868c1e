"""ImageNet-1k and its shifted versions, in the layouts in which they are published.

Labels are places in ImageNet's order of 1000 classes: that of their WordNet ids. The ids, and which
of them are in -A and -R, are timm's lists; the names are open_clip's.

| variant     | class folders                     | otherwise                                     |
| ----------- | --------------------------------- | --------------------------------------------- |
| train       | WordNet ids                       |                                               |
| val         | WordNet ids                       | flat, with a list of WordNet ids, see below   |
| v2          | numbers 0 to 999, read as numbers | WordNet ids, as the second archive has them   |
| r, a        | WordNet ids, 200 of them          |                                               |
| sketch      | WordNet ids                       |                                               |

Files beside the class folders (-R and -A come with a README.txt) are left alone.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from radapter.data.dataset import Dataset
from radapter.data.left_out import LeftOut, merged, some
from radapter.data.listing import class_folders, list_pictures
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import HeldOut, IdenticalClasses, first_folder
from radapter.data.stores import Files
from radapter.errors import BrokenInput, not_installed
from radapter.names import to_bytes

USUAL = {
    "train": (
        "imagenet/train",
        "imagenet/images/train",  # CoOp
        "ILSVRC2012/train",  # FLYP, R-Adapter
        "imagenet/ILSVRC/Data/CLS-LOC/train",  # Kaggle
        "ILSVRC/Data/CLS-LOC/train",
        "train",
    ),
    "val": (
        "imagenet/val_in_folder",  # WiSE-FT; before `val`, which is the flat one then
        "imagenet/val",
        "imagenet/images/val",
        "ILSVRC2012/val_dirs",
        "ILSVRC2012/val",
        "imagenet/ILSVRC/Data/CLS-LOC/val",
        "ILSVRC/Data/CLS-LOC/val",
        "val",
    ),
    "v2": (
        "imagenetv2-matched-frequency-format-val",
        "ImageNetV2-matched-frequency",
        "imagenetv2/imagenetv2-matched-frequency-format-val",
        "imagenetv2/ImageNetV2-matched-frequency",
    ),
    "r": ("imagenet-r", "imagenet-rendition/imagenet-r"),
    "a": ("imagenet-a", "imagenet-adversarial/imagenet-a"),
    "sketch": ("sketch", "imagenet-sketch/images", "imagenet-sketch/sketch", "imagenet-sketch"),
}
TITLES = {
    "train": "ImageNet's training set",
    "val": "ImageNet's validation set",
    "v2": "ImageNet-V2 (matched frequency)",
    "r": "ImageNet-R",
    "a": "ImageNet-A",
    "sketch": "ImageNet-Sketch",
}
KAGGLE_LIST = "LOC_val_solution.csv"
TENSORFLOW_LIST = "imagenet_2012_validation_synset_labels.txt"
DEVKIT_LIST, DEVKIT_TABLE = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
DEVKIT = "ILSVRC2012_devkit_t12/data"
LEVELS = 5
"""How far above a flat `val` its list is looked for: Kaggle's lies four folders higher."""


def _timm_list(name: str) -> list[str]:
    """The lines of one of timm's data files, without importing timm."""
    spec = find_spec("timm")  # open_clip needs it, so it is there
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "_info" / name
    return path.read_text(encoding="utf-8").splitlines()


@functools.cache
def synsets() -> tuple[str, ...]:
    """The 1000 WordNet ids in the order of ImageNet's classes."""
    return tuple(_timm_list("imagenet_synsets.txt"))


@functools.cache
def lemmas() -> tuple[str, ...]:
    """WordNet's words for each of the 1000 classes, as ObjectNet's mapping names them."""
    words = dict(line.split("\t", 1) for line in _timm_list("imagenet_synset_to_lemma.txt"))
    return tuple(words[synset] for synset in synsets())


@functools.cache
def subset(variant: str) -> tuple[int, ...]:
    """The classes of a variant: 200 places of `r` and `a`, all 1000 of the others."""
    if variant not in ("r", "a"):
        return tuple(range(len(synsets())))
    number = {synset: i for i, synset in enumerate(synsets())}
    return tuple(sorted(number[s] for s in _timm_list(f"imagenet_{variant}_synsets.txt")))


def class_names() -> list[str]:
    """The 1000 names that CLIP models are prompted with, from open_clip."""
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


class ImageNetData(HeldOut):
    """ImageNet-1k and its shifted versions, in the layouts in which they are published."""

    convention = PUBLISHED
    source: Literal["imagenet"]
    named_by = ("variant", "root")
    variant: Literal["train", "val", "v2", "r", "a", "sketch"] = "train"
    """Which set: ImageNet's own `train` or `val`, or its shifted version V2, -R, -A or -Sketch."""
    root: str | None = None
    """The folder of the class folders, or of the pictures of a flat `val`. `null`: the one under
    the data root that has one of the usual names."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """How many pictures of each class of `train` are taken: those with the smallest sha256 of
    "SEED/WNID/FILE NAME". `null`: all."""
    shots_seed: Annotated[int, Field(ge=0)] = 0
    """The SEED of that draw."""
    identical_classes: IdenticalClasses = "apart"

    @model_validator(mode="after")
    def _shots_are_for_training(self) -> ImageNetData:
        if self.shots is not None and self.variant != "train":
            raise ValueError("shots draws from `variant: train` only")
        return self

    def published_as(self) -> str:
        """All pictures but those of the shifted sets are ImageNet's."""
        return "imagenet" if self.variant in ("train", "val") else f"imagenet-{self.variant}"

    def open(self) -> Dataset:
        """The pictures of one variant in the order of their classes, then names; see the module.

        Classes without pictures are allowed (a part of the set is still useful for training);
        whoever knows the published counts compares.

        Raises:
            BrokenInput: nothing is there, a folder is no class of the variant, or a flat `val` has
                no list that says its classes for sure.
        """
        variant = self.variant
        root = first_folder(self, self.root, USUAL[variant], TITLES[variant])
        folders = class_folders(root)
        beside = list_pictures(root, below=False)
        files = [] if folders else beside.pictures
        if not folders and not (variant == "val" and files):
            flat = " or the flat pictures ILSVRC2012_val_*.JPEG" if variant == "val" else ""
            raise BrokenInput(f"{root} has no class folders such as {synsets()[0]}{flat}.")
        found: list[tuple[int, str]] = []
        left_out: list[LeftOut] = [beside.left_out]
        if folders:
            numbers = _class_of_folders(root, folders, variant)
            left_out = [{"in no class": beside.pictures}]
            for folder in sorted(folders, key=numbers.__getitem__):
                inside = list_pictures(root / folder, below=False)
                found += [(numbers[folder], f"{folder}/{name}") for name in inside.pictures]
                left_out.append(inside.under(folder))
        else:
            known = _flat_labels(root, files)
            found = sorted((known[name], name) for name in files)
        places = Files(root, [path for _, path in found], self.reading())
        ids = synsets()
        only = subset(variant)
        return Dataset(
            source=f"imagenet {variant}",
            # Of the class, not of the folder: one set has one fingerprint in every layout.
            keys=[f"{ids[label]}/{path.rpartition('/')[2]}" for label, path in found],
            read=places.read,
            labels=[label for label, _ in found],
            class_names=class_names(),
            groups=list(range(len(found))),
            stamp=places.stamp,
            answers=[[number] for number in only],
            protocol={
                "classes": "all 1000"
                if len(only) == len(ids)
                else f"{len(only)} of ImageNet's 1000; the others are never answered",
            },
            left_out=merged(*left_out),
        )

    def drawn(self, dataset: Dataset) -> Dataset:
        """`shots` pictures of every class, by a hash of seed and name: the same ones everywhere."""
        if self.shots is None or self.split == "validation":
            return dataset
        of_class: dict[int, list[tuple[str, int]]] = {}
        for i, (label, key) in enumerate(zip(dataset.labels, dataset.keys, strict=True)):
            digest = hashlib.sha256(to_bytes(f"{self.shots_seed}/{key}")).hexdigest()
            of_class.setdefault(label, []).append((digest, i))
        few = [synsets()[label] for label, items in of_class.items() if len(items) < self.shots]
        if few:
            raise BrokenInput(
                f"{TITLES['train']} has classes of fewer than {self.shots} pictures: {some(few)}."
            )
        chosen = [i for items in of_class.values() for _, i in sorted(items)[: self.shots]]
        drawn = dataset.select(sorted(chosen))
        rule = f"{self.shots} a class, seed {self.shots_seed}"
        return dataclasses.replace(drawn, protocol={**drawn.protocol, "shots": rule})


def _class_of_folders(root: Path, folders: list[str], variant: str) -> dict[str, int]:
    """Folder -> class number; BrokenInput names the folders that are no class of the variant."""
    if variant == "v2" and all(name.isdecimal() for name in folders):
        numbers = {name: int(name) for name in folders}
        kind = "the numbers 0 to 999"
    else:
        place = {synset: i for i, synset in enumerate(synsets())}
        numbers = {name: place.get(name, -1) for name in folders}
        kind = f"WordNet ids such as {synsets()[0]}"
    allowed = set(subset(variant))
    strange = [name for name in folders if numbers[name] not in allowed]
    if strange:
        raise BrokenInput(
            f"{root} has folders that are not classes of {TITLES[variant]}: "
            f"{some(strange)}. Its {len(allowed)} class folders are named by {kind}."
        )
    if len(set(numbers.values())) < len(folders):
        raise BrokenInput(f"{root} has two folders of one class, such as 7 and 07.")
    return numbers


def _flat_labels(root: Path, files: list[str]) -> dict[str, int]:
    """File name -> class number for the flat validation set.

    From the first of these lists that is in the folder or above it: Kaggle's LOC_val_solution.csv;
    TensorFlow's imagenet_2012_validation_synset_labels.txt; the devkit's ground truth with its
    meta.mat beside it. The ground truth holds the challenge's own ids, which are not the places of
    sorted WordNet ids and differ between editions of the challenge: alone it is not taken.
    """
    above = [root, *root.absolute().parents][:LEVELS]
    lists = {
        name: next((f / name for f in above if (f / name).is_file()), None)
        for name in (KAGGLE_LIST, TENSORFLOW_LIST)
    }
    devkits = [f / inner for f in above for inner in ("", DEVKIT)]
    devkit = next((f for f in devkits if (f / DEVKIT_LIST).is_file()), None)
    if path := lists[KAGGLE_LIST]:
        synset_of = _read_kaggle_list(path)
    elif path := lists[TENSORFLOW_LIST]:
        synset_of = _numbered(path, path.read_text(encoding="utf-8").split())
    elif devkit and (devkit / DEVKIT_TABLE).is_file():
        path = devkit / DEVKIT_LIST
        synset_of = _numbered(path, _read_devkit(devkit))
    else:
        hint = (
            f" {devkit / DEVKIT_LIST} is not enough: it holds the challenge's own ids, which only "
            f"the devkit's {DEVKIT_TABLE} beside it explains."
            if devkit
            else ""
        )
        raise BrokenInput(
            f"{root} is flat, and no list says the classes of its pictures.{hint} Put Kaggle's "
            f"{KAGGLE_LIST}, TensorFlow's {TENSORFLOW_LIST} or the folder {DEVKIT} beside the "
            "pictures or above them, or sort the pictures into class folders."
        )
    place = {synset: i for i, synset in enumerate(synsets())}
    unknown = [name for name in files if place.get(synset_of.get(Path(name).stem, "")) is None]
    if unknown:
        raise BrokenInput(f"{path} has no class for pictures in {root}: {some(unknown)}.")
    return {name: place[synset_of[Path(name).stem]] for name in files}


def _numbered(path: Path, ids: list[str]) -> dict[str, str]:
    """Picture -> WordNet id, from a list with a line for each picture of the whole set."""
    if len(ids) != 50_000:
        raise BrokenInput(f"{path} has {len(ids)} lines, not one for each of 50,000.")
    return {f"ILSVRC2012_val_{i:08d}": synset for i, synset in enumerate(ids, 1)}


def _read_devkit(devkit: Path) -> list[str]:
    """The WordNet ids of the ground truth, by the table of ids in meta.mat, a MATLAB file."""
    table = devkit / DEVKIT_TABLE
    try:
        from scipy.io import loadmat
    except ImportError:
        raise not_installed(str(table), "scipy", "devkit") from None
    try:
        rows = loadmat(table, squeeze_me=True)["synsets"]
        synset_of = {
            int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if row["num_children"] == 0
        }
        lines = (devkit / DEVKIT_LIST).read_text(encoding="utf-8").split()
        ids = [synset_of[int(line)] for line in lines]
    except Exception as error:  # whatever a damaged MATLAB file makes scipy raise
        raise BrokenInput(f"{devkit} is incomplete: {error!r}. Unpack it again.") from None
    if sorted(synset_of.values()) != list(synsets()):
        raise BrokenInput(f"{table} does not name the 1000 classes of ILSVRC 2012.")
    return ids


def _read_kaggle_list(path: Path) -> dict[str, str]:
    """Picture -> WordNet id; a row is `ImageId,PredictionString`, the latter `WNID x y x y` once
    for every box."""
    synset_of = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                ids = set(row["PredictionString"].split()[::5])
                if len(ids) != 1:
                    raise BrokenInput(f"{path}: {row['ImageId']} has {len(ids)} classes, not one.")
                synset_of[row["ImageId"]] = ids.pop()
    except (csv.Error, KeyError, AttributeError, UnicodeDecodeError):
        raise BrokenInput(
            f"{path} is not Kaggle's list: its columns are ImageId,PredictionString."
        ) from None
    return synset_of
