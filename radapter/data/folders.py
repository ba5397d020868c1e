"""Image folders: ROOT/CLASS NAME/picture.jpg, the class name being the prompt's word."""

from __future__ import annotations

from radapter.data.dataset import Dataset, Files, MissingData
from radapter.data.pixels import IMAGE_EXTENSIONS, reading_of
from radapter.errors import BrokenInput
from radapter.recipe_data import FolderData, located


def open_folder(settings: FolderData) -> Dataset:
    """Pictures in class folders, in the order of their names; `_` in a class name is a space."""
    root = located(settings, settings.root)
    if not root.is_dir():
        raise MissingData(f"No such folder: {root}.")
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise BrokenInput(f"{root} has no class folders: expected {root}/CLASS NAME/picture.jpg.")
    paths, labels = [], []
    for label, folder in enumerate(classes):
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS)
        if not found:
            raise BrokenInput(f"{folder} has no pictures.")
        paths += found
        labels += [label] * len(found)
    keys = [p.relative_to(root).as_posix() for p in paths]
    files = Files(root, keys, reading_of(settings))
    return Dataset(
        source=f"folder {root}",
        keys=keys,
        read=files.read,
        labels=labels,
        class_names=[p.name.replace("_", " ") for p in classes],
        groups=list(range(len(paths))),
        stamp=files.stamp,
    )
