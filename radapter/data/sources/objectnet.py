"""ObjectNet, on the 113 of its 313 classes that are ImageNet's too.

    objectnet-1.0/images/FOLDER/*.png
    objectnet-1.0/mappings/
        folder_to_objectnet_label.json      {"alarm_clock": "Alarm clock"}
        objectnet_to_imagenet_1k.json       {"Alarm clock": "analog clock; digital clock"}
        imagenet_to_label_2012_v2           a line for each class, in an order of its own
        pytorch_to_imagenet_2012_id.json    {"409": 426}: class 409 is line 426, from 0

The pictures have a red border, one pixel wide. WiSE-FT's code means to cut it off, and FLYP's and
R-Adapter's, made from it, too: but the base class makes the test set with the preprocessing as it
is then, and the one with the crop, set afterwards, is used by nothing. So the numbers published by
them are of whole pictures, and so is the protocol `wise-ft`; `wise-ft-cropped` is what was meant.

The mappings come with the set, and no copy of them is kept here. ImageNet's names in them are
WordNet's words, so the classes are found by timm's list of those; the last two files, which say
the same in another way, are compared with that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from radapter.data.dataset import Dataset
from radapter.data.left_out import merged
from radapter.data.listing import list_pictures
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, IdenticalClasses, first_folder
from radapter.data.sources import imagenet
from radapter.data.stores import Files
from radapter.errors import BrokenInput

USUAL = ("objectnet-1.0", "objectnet/objectnet-1.0", "ObjectNet/objectnet-1.0", "objectnet")
BORDER = 2
"""Pixels cut off on each side: the border is one pixel wide, and JPEG copies smear it."""


class ObjectNetData(Data):
    """The 113 classes of ObjectNet that are ImageNet's too. Its licence is for testing only."""

    convention = PUBLISHED
    source: Literal["objectnet"]
    named_by = ("root",)
    root: str | None = None
    """The folder with `images` and `mappings`. `null`: the one under the data root that has one of
    the usual names."""
    protocol: Literal["wise-ft", "wise-ft-cropped", "clip-benchmark"] = "wise-ft"
    """How pictures are classified. `wise-ft`: among ImageNet's 1000 names, where a class scores the
    maximum over its ImageNet classes, without a crop, as the code of WiSE-FT, FLYP and R-Adapter
    does. `wise-ft-cropped`: the same with 2 pixels (the red border) cut off on each side, as that
    code means to do. `clip-benchmark`: among ObjectNet's own 113 names in lower case, without a
    crop."""
    identical_classes: IdenticalClasses = "apart"
    no_training = "ObjectNet's licence allows testing only: do not train on it"

    def published_as(self) -> str:
        return "objectnet"

    def open(self) -> Dataset:
        """The overlapping classes in the order of their folders' names; see `protocol`."""
        root = first_folder(self, self.root, USUAL, "ObjectNet")
        for name in ("images", "mappings"):
            if not (root / name).is_dir():
                raise BrokenInput(f"{root} has no folder {name}: it is not ObjectNet as published.")
        overlap = read_overlap(root / "mappings")
        folders = sorted(overlap)
        there = {
            number: list_pictures(root / "images" / folder, below=False)
            for number, folder in enumerate(folders)
            if (root / "images" / folder).is_dir()
        }
        found = [(number, name) for number, inside in there.items() for name in inside.pictures]
        if not found:
            raise BrokenInput(
                f"{root / 'images'} has no pictures of the classes that ImageNet has."
            )
        if self.protocol == "clip-benchmark":
            names = [overlap[folder][0].lower() for folder in folders]
            answers = [[number] for number in range(len(folders))]
            rule = f"{len(folders)} names of ObjectNet's own, in lower case"
        else:
            names = imagenet.class_names()
            answers = [overlap[folder][1] for folder in folders]
            rule = (
                f"{len(folders)}, each the maximum over its ImageNet classes, of ImageNet's 1000 "
                "names"
            )
        border = BORDER if self.protocol == "wise-ft-cropped" else 0
        keys = [f"{folders[number]}/{name}" for number, name in found]
        files = Framed(root / "images", keys, self.reading(), border)
        return Dataset(
            source="objectnet",
            keys=keys,
            read=files.read,
            labels=[answers[number][0] for number, _ in found],
            class_names=names,
            groups=list(range(len(found))),
            stamp=files.stamp,
            left_out=merged(*(inside.under(folders[number]) for number, inside in there.items())),
            answers=answers,
            protocol={
                "objectnet": self.protocol,
                "crop": f"{border} pixels on each side" if border else "none",
                "classes": rule,
            },
        )

    def sizes(self) -> dict[str, dict[str, int]]:
        """How many classes the mappings have."""
        mappings = first_folder(self, self.root, USUAL, "ObjectNet") / "mappings"
        overlap = read_overlap(mappings)
        mapping = {
            "folders": len(_read_json(mappings, "folder_to_objectnet_label")),
            "folders of ImageNet's classes": len(overlap),
            "ImageNet's classes": sum(len(numbers) for _, numbers in overlap.values()),
        }
        return {"mapping": mapping}


def read_overlap(mappings: Path) -> dict[str, tuple[str, list[int]]]:
    """{folder: (ObjectNet's name, its ImageNet classes)} of the classes that are in both.

    Raises:
        BrokenInput: a file is missing or damaged, or a name is no class of ImageNet's.
    """
    folder_of = {
        label: folder for folder, label in _read_json(mappings, "folder_to_objectnet_label").items()
    }
    place = {words: number for number, words in enumerate(imagenet.lemmas())}
    overlap: dict[str, tuple[str, list[int]]] = {}
    taken: set[int] = set()
    for label, names in _read_json(mappings, "objectnet_to_imagenet_1k").items():
        numbers = [place.get(name, -1) for name in str(names).split("; ")]
        if label not in folder_of or -1 in numbers or taken & set(numbers):
            raise BrokenInput(
                f"{mappings / 'objectnet_to_imagenet_1k.json'}: '{label}' ({names}) has "
                "no folder, is not an ImageNet class, or names a class that another "
                "entry names. Unpack the published archive again."
            )
        taken |= set(numbers)
        overlap[folder_of[label]] = (label, numbers)
    _compare_with_lines(mappings, taken)
    return overlap


def _compare_with_lines(mappings: Path, numbers: set[int]) -> None:
    """The set's own numbering, where it is there, has to name the same classes."""
    lines_path = mappings / "imagenet_to_label_2012_v2"
    if not lines_path.is_file():
        return
    line_of = _read_json(mappings, "pytorch_to_imagenet_2012_id")
    lines = lines_path.read_text(encoding="utf-8").splitlines()
    for number in sorted(numbers):
        line = line_of.get(str(number), -1)
        said = lines[line].strip() if isinstance(line, int) and 0 <= line < len(lines) else None
        if said != imagenet.lemmas()[number]:
            raise BrokenInput(
                f"{mappings} says that class {number} is '{said}', but it is "
                f"'{imagenet.lemmas()[number]}'. Unpack the published archive again."
            )


def _read_json(mappings: Path, name: str) -> dict[str, Any]:
    path = mappings / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenInput(f"{path} is missing: it comes with ObjectNet's archive.") from None
    except (OSError, ValueError) as error:
        raise BrokenInput(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict) or not content:
        raise BrokenInput(f"{path} is damaged: it is not a table of names.")
    return content


@dataclass(frozen=True)
class Framed(Files):
    """Pictures of which some pixels are cut off on each side."""

    border: int

    def read(self, index: int) -> Image.Image:
        picture = super().read(index)
        width, height = picture.size
        if min(width, height) <= 2 * self.border:
            raise BrokenInput(f"Picture is too small: {self.root / self.names[index]}.")
        return picture.crop((self.border, self.border, width - self.border, height - self.border))
