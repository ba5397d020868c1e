"""Image folders: ROOT/CLASS NAME/picture.jpg, the class name being the prompt's word."""

from __future__ import annotations

from radapter.data.class_names import class_name, gathered, joined_notes
from radapter.data.dataset import Dataset, Files, MissingData
from radapter.data.left_out import LeftOut, lines_of, merged
from radapter.data.listing import class_folders, list_pictures
from radapter.data.pixels import reading_of
from radapter.errors import BrokenInput
from radapter.recipe_data import FolderData, located


def open_folder(settings: FolderData) -> Dataset:
    """Pictures in class folders, in the order of their names; `_` in a class name is a space.

    Folders whose names make one class (`red_square` and `red square`) are joined. Pictures right in
    the root are in no class.
    """
    root = located(settings, settings.root)
    if not root.is_dir():
        raise MissingData(f"No such folder: {root}.")
    folders = class_folders(root)
    if not folders:
        raise BrokenInput(f"{root} has no class folders: expected {root}/CLASS NAME/picture.jpg.")
    names, numbers = gathered([class_name(folder) for folder in folders])
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
    files = Files(root, keys, reading_of(settings))
    return Dataset(
        source=f"folder {root}",
        keys=keys,
        read=files.read,
        labels=labels,
        class_names=names,
        groups=list(range(len(keys))),
        stamp=files.stamp,
        left_out=merged(*left_out),
        notes=joined_notes(folders, numbers),
    )
