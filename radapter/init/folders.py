"""Folders of pictures: class folders, captions in text files beside, and how splits lie in them."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path, PurePosixPath

from radapter.data.listing import class_folders, list_pictures
from radapter.data.names_file import is_id
from radapter.data.sources.caption_files import ENDINGS, caption_of
from radapter.data.sources.folder import read_list
from radapter.data.videos import is_video
from radapter.errors import UsageError
from radapter.init.class_words import names_file_for
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import Doubt, choose, is_plain

EXPECTED = (
    "expected class folders (PATH/CLASS NAME/picture.jpg or video.mp4), pictures with a .txt of "
    "captions beside each, a table of pictures or videos and texts (CSV, TSV, JSON, JSON lines, "
    "Parquet), tar shards, clip-benchmark's folders, a set saved by Hugging Face datasets, or a "
    "caption file in Karpathy's or COCO's form."
)
LOOKED_AT = 500  # pictures, for whether captions lie beside them
BOXES = re.compile(r"[\d\s.,eE+-]*")


def folder_of_pictures(spot: Spot, wanted: Wanted) -> Found:
    """Class folders, or pictures with their captions beside them."""
    classes = [name for name in class_folders(spot.path) if has_pictures(spot.path / name)]
    beside = [] if wanted.task == "classification" else _captions_beside(spot.path)
    ending = next((ending for ending, share in beside if share >= 0.5), None)
    numbers = all(re.fullmatch(r"\d+", name) for name in classes)  # as img2dataset writes them
    loose = bool(list_pictures(spot.path, below=False).pictures)
    if ending and wanted.task is None and len(classes) > 1 and not numbers and not loose:
        raise UsageError(
            f"{spot.path} has folders that may be classes ({_some(classes)}), and a {ending} "
            "beside the pictures. Say which texts to train on: --task classification takes the "
            "folders' names, --task captions what stands in the text files."
        )
    if beside and not ending and wanted.task is None and classes and numbers:
        raise Doubt(
            f"{spot.path} has folders called by numbers ({_some(classes)}), and texts beside some "
            "of the pictures, as img2dataset writes them where captions were lost. Say which to "
            "train on: --task classification takes the numbers as classes; for captions, give each "
            "picture its text or take it out."
        )
    if ending:
        data = {"source": "caption-files", "root": spot.written, "task": "captions"}
        if ending != ENDINGS[0]:
            data["caption_ending"] = ending
        return Found("pictures with captions beside them", data)
    found = _listed(spot, wanted) or _split_inside(spot, wanted, classes)
    if found is None and len(classes) < 2:
        raise UsageError(_too_few(spot.path, classes))
    found = found or Found("class folders", {"source": "folder", "root": spot.written})
    if classes and all(map(is_id, classes)):
        names_file_for(spot, classes, found)
    return found


def has_pictures(folder: Path) -> bool:
    """Whether there is a picture in a folder or below it."""
    return bool(list_pictures(folder).pictures)


def has_items(folder: Path) -> bool:
    """Whether there is a picture or a video in a folder or below it."""
    found = list_pictures(folder)
    return bool(found.pictures) or any(map(is_video, found.left_out.get("ending", ())))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _too_few(place: Path, classes: list[str]) -> str:
    if not classes:
        return f"{place} has no pictures in folders: {EXPECTED}"
    inner = place / classes[0]
    if len([name for name in class_folders(inner) if has_pictures(inner / name)]) > 1:
        return f"{place} has pictures in 1 folder, which has folders of its own: name {inner}."
    return (
        f"{place} has pictures in 1 folder: with one class alone there is nothing to tell apart. "
        f"Otherwise {EXPECTED}"
    )


# ---------------------------------------------------------------- captions beside


def _captions_beside(folder: Path) -> list[tuple[str, float]]:
    """Endings of captions beside pictures, each with the share of pictures that has one."""
    pictures = [folder / name for name in list_pictures(folder).pictures[:LOOKED_AT]]
    found = []
    for ending in ENDINGS:
        texts = [path for p in pictures if (path := p.with_suffix(ending)).is_file()]
        first = [text for path in texts[:50] for text in caption_of(path)]
        # Numbers alone are boxes or classes, as detectors have them.
        if first and not all(BOXES.fullmatch(text) for text in first):
            found.append((ending, len(texts) / len(pictures)))
    return found


# ---------------------------------------------------------------- splits inside


def _split_inside(spot: Spot, wanted: Wanted, classes: list[str]) -> Found | None:
    """CLASS NAME/SPLIT/picture.jpg, if the folders in the classes are called like splits."""
    inside = {name: class_folders(spot.path / name) for name in classes}
    names = sorted({name for found in inside.values() for name in found})
    if len(classes) < 2 or not any(map(is_plain, names)) or wanted.split == "none":
        return None
    loose = next((c for c in classes if list_pictures(spot.path / c, below=False).pictures), None)
    beside = [] if loose is None else [f"pictures right in {loose}"]
    chosen = choose(names + beside, wanted.split, str(spot.path), "in its class folders folders")
    if chosen is None:
        return None
    without = [name for name, found in inside.items() if chosen.train not in found]
    if without:
        raise UsageError(
            f"{spot.path} has a folder {chosen.train} in some classes and none in {len(without)}, "
            f"such as {without[0]}: put one there, or move that class away."
        )
    data = {"source": "folder", "root": spot.written, "dataset_split": chosen.train}
    found = Found("class folders with splits inside", data)
    found.taken["dataset_split"] = "the folder in each class; pictures of the others are left alone"
    return found.choose(chosen, lambda name: {"dataset_split": name})


def _listed(spot: Spot, wanted: Wanted) -> Found | None:
    """Class folders beside lists of the splits: train.txt, val.txt, meta/test.txt."""
    lists = lists_of_splits(spot)
    if not lists or wanted.split == "none":
        return None
    by_stem: dict[str, str] = {}
    for name in lists:
        stem = PurePosixPath(name).stem
        if stem in by_stem:
            raise Doubt(
                f"{spot.path} has two lists of one split, {by_stem[stem]} and {name}: "
                "move one away, or ignore the lists and take all pictures: --split none."
            )
        by_stem[stem] = name
    chosen = choose(sorted(by_stem), wanted.split, str(spot.path), "lists")
    if chosen is None:
        return None
    root = _root_of_list(spot, lists[by_stem[chosen.train]])
    listed_in = spot.below(by_stem[chosen.train]).written
    data = {"source": "folder", "root": root.written, "listed_in": listed_in}
    found = Found("class folders with lists of the splits", data)
    found.taken["listed_in"] = "only the pictures that this list names"
    return found.choose(chosen, lambda name: {"listed_in": spot.below(by_stem[name]).written})


def lists_of_splits(spot: Spot) -> dict[str, Path]:
    """Text files called like splits, in a folder or the folders right below it, by name."""
    files = [p for p in (*spot.path.glob("*.txt"), *spot.path.glob("*/*.txt")) if is_plain(p.stem)]
    return {p.relative_to(spot.path).as_posix(): p for p in sorted(files)}


def _root_of_list(spot: Spot, path: Path) -> Spot:
    """The folder that the list's paths start from: the one that has the class folders."""
    names = list(islice(read_list(path), 20))
    for root in (spot, *(spot.below(name) for name in class_folders(spot.path))):
        classes = set(class_folders(root.path))
        if any(name.split("/")[0] in classes and "/" in name for name in names):
            return root
    first = names[0] if names else "it is empty"
    raise UsageError(
        f"{path} looks like a list of a split, and its names ({first}, ...) do not begin with a "
        f"class folder of {spot.path}. Write a table with the columns filepath, label and split "
        "instead, or ignore the lists and take all pictures: --split none."
    )
