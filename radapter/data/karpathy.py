"""Karpathy's split files of Flickr30K, COCO and Flickr8K: captions and a split for each picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from radapter.data.dataset import Dataset, Files
from radapter.data.picture_files import (
    KEPT,
    caption_facts,
    find_pictures,
    read_json,
)
from radapter.data.pixels import reading_of
from radapter.errors import BrokenInput
from radapter.recipe_data import KarpathyData, located

SPLITS = {
    "train": ("train", "restval"),
    "validation": ("val",),
    "test": ("test",),
    "all": ("train", "restval", "val", "test"),
}
"""Our names and the file's. restval is the rest of COCO's validation pictures, and part of what is
trained on: 82,783 + 30,504 = 113,287 pictures."""
FOLDERS = ("", "flickr30k-images", "images")


def open_karpathy(settings: KarpathyData) -> Dataset:
    """The pictures of a split in the file's order, each with its captions; a group is a picture.

    Keys are the file's own names (val2014/COCO_val2014_000000391895.jpg), wherever they lie.

    Raises:
        BrokenInput: the file is missing or of another form, or pictures of the split are missing.
    """
    path = located(settings, settings.path)
    content = _read(path)
    wanted = SPLITS[settings.split]
    keys: list[str] = []
    captions: list[list[str]] = []
    for number, image in enumerate(content["images"]):
        try:
            if image["split"] not in wanted:
                continue
            folder = image.get("filepath")
            name = f"{folder}/{image['filename']}" if folder else image["filename"]
            texts = [sentence["raw"].strip() for sentence in image["sentences"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise BrokenInput(f"{path}: image {number} lacks or misshapes {error}.") from None
        texts = [text for text in texts if text][: KEPT[settings.protocol]]
        if not texts:
            raise BrokenInput(f"{path}: {name} has no captions.")
        keys.append(name)
        captions.append(texts)
    root = located(settings, settings.root) if settings.root else path.parent
    found = find_pictures(root, keys, FOLDERS, settings.broken_images)
    files = Files(root, found, reading_of(settings))
    return Dataset(
        source=f"karpathy {path.name}, {settings.split}",
        keys=keys,
        read=files.read,
        captions=captions,
        groups=list(range(len(keys))),
        protocol=caption_facts(settings.protocol),
        stamp=files.stamp,
        digest=files.digest,
    )


def split_sizes(settings: KarpathyData) -> dict[str, int]:
    """How many pictures the file lists for each of its own splits; no picture is looked for.

    Raises:
        BrokenInput: the file is missing or of another form.
    """
    content = _read(located(settings, settings.path))
    return dict(Counter(str(image.get("split")) for image in content["images"]))


def is_karpathy(content: dict[str, Any]) -> bool:
    """Whether the content of a JSON file has Karpathy's form, by its first image."""
    images = content.get("images")
    first = images[0] if isinstance(images, list) and images else None
    return isinstance(first, dict) and {"filename", "split", "sentences"} <= first.keys()


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not is_karpathy(content):
        raise BrokenInput(
            f"{path} is no file of Karpathy's form: images with filename, split and sentences."
        )
    return content
