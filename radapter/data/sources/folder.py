"""Image folders: ROOT/CLASS NAME/picture.jpg, the class name being the prompt's word."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from radapter.data.class_names import class_name, gathered, joined_notes
from radapter.data.dataset import Dataset, check_broken
from radapter.data.left_out import LeftOut, lines_of, merged
from radapter.data.listing import class_folders, list_pictures
from radapter.data.names_file import names_for
from radapter.data.settings import HeldOut, MissingData, located
from radapter.data.stores import Files
from radapter.errors import BrokenInput


class FolderData(HeldOut):
    """One folder per class: ROOT/CLASS NAME/picture.jpg."""

    source: Literal["folder"]
    named_by = ("root", "dataset_split")
    root: str
    """The folder of the class folders."""
    dataset_split: str | None = None
    """Take only the pictures in the folder of this name in each class, such as `train` for
    ROOT/CLASS NAME/train/1.jpg. `null`: all."""
    listed_in: str | None = None
    """Take only the pictures that this text file names. A line is a path below the root, with or
    without its ending; a class number after it is not read. `null`: all."""
    class_names_in: str | None = None
    """A file with the names of classes whose folders are called by numbers or ids:
    class_index.json, or a text file such as classes.txt with a name in each line, the first for
    class 0, or an id and a name. `null`: folders are called by the names of their classes."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> FolderData:
        if self.dataset_split is not None and self.listed_in is not None:
            raise ValueError("dataset_split and listed_in both choose the split: give one of them")
        return self

    def in_words(self) -> str:
        return f"folder {Path(self.root).name}"

    def open(self) -> Dataset:
        """Pictures in class folders, in the order of their names; `_` in a class name is a space.

        Folders whose names make one class (`red_square` and `red square`) are joined. Pictures
        right in the root are in no class.
        """
        root = located(self, self.root)
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
        folders = class_folders(root)
        if not folders:
            raise BrokenInput(
                f"{root} has no class folders: expected {root}/CLASS NAME/picture.jpg."
            )
        spelled = [class_name(folder) for folder in folders]
        if self.class_names_in:
            spelled = names_for(folders, located(self, self.class_names_in))
        names, numbers = gathered(spelled)
        beside = list_pictures(root, below=False)
        left_out: list[LeftOut] = [beside.left_out, {"in no class": beside.pictures}]
        keys, labels = [], []
        for folder, number in zip(folders, numbers, strict=True):
            found = list_pictures(root / folder)
            if not found.pictures:
                why = "".join(f" ({line})" for line in lines_of(found.left_out))
                raise BrokenInput(f"{root / folder} has no pictures{why}.")
            # By folder first: the order that runs of older versions were trained in.
            pictures = sorted(found.pictures, key=lambda name: name.split("/"))
            keys += [f"{folder}/{name}" for name in pictures]
            labels += [number] * len(pictures)
            left_out.append(found.under(folder))
        return self._of(
            root, keys, merged(*left_out), labels, names, joined_notes(folders, numbers)
        )

    def open_pictures(self) -> Dataset:
        """All pictures below the root, in class folders or not."""
        root = located(self, self.root)
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct its `root`, or give --data-root.")
        found = list_pictures(root)
        return self._of(root, found.pictures, found.left_out)

    def _of(
        self,
        root: Path,
        keys: list[str],
        left_out: LeftOut,
        labels: Sequence[int] = (),
        names: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Dataset:
        files = Files(root, keys, self.reading())
        dataset = Dataset(
            source=f"folder {root}",
            keys=keys,
            read=files.read,
            labels=list(labels),
            class_names=list(names),
            groups=list(range(len(keys))),
            stamp=files.stamp,
            digest=files.digest,
            left_out=left_out,
            notes=list(notes),
        )
        return _chosen(dataset, root, self)


def _chosen(dataset: Dataset, root: Path, settings: FolderData) -> Dataset:
    """The pictures of the split that the settings name; those of others are no part of the set."""
    if settings.dataset_split is not None:
        wanted = settings.dataset_split
        chosen = [i for i, key in enumerate(dataset.keys) if key.split("/")[1:-1][:1] == [wanted]]
        if not chosen:
            raise BrokenInput(f"No class folder in {root} has a folder {wanted} with pictures.")
        return dataset.select(chosen)
    if settings.listed_in is None:
        return dataset
    path = located(settings, settings.listed_in)
    place = {key: i for i, key in enumerate(dataset.keys)}
    place |= {key.rsplit(".", 1)[0]: i for key, i in place.items()} | place
    indices, missing = [], []
    for name in read_list(path):
        index = place.get(name, place.get(re.sub(r"[\s,]+\d+$", "", name)))
        if index is None:
            missing.append(name)
        else:
            indices.append(index)
    check_broken(
        [f"{path} names {name}, which is not in {root}." for name in missing],
        settings.broken_images,
        "data.broken_images",
    )
    return dataclasses.replace(
        dataset.select(list(dict.fromkeys(indices))),
        left_out=merged(dataset.left_out, {"missing": missing}),
    )


def read_list(path: Path) -> Iterator[str]:
    """The lines of a list of pictures: a name each, and some have a class number behind it.

    Raises:
        BrokenInput: there is no such list, or it is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path} is not a readable list: {error}") from None
    for line in lines:
        if line.strip():
            yield line.strip().replace("\\", "/").removeprefix("./").removeprefix("/")
