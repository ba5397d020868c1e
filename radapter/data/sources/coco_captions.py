"""COCO's official caption files: a list of images and one of annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from radapter.data.captions import (
    KEPT,
    CaptionProtocol,
    caption_facts,
    find_pictures,
    read_json,
)
from radapter.data.dataset import Dataset
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import HeldOut, located
from radapter.data.stores import Files
from radapter.errors import BrokenInput


class CocoCaptionsData(HeldOut):
    """COCO's official annotations: captions_train2014.json and others of that form."""

    convention = PUBLISHED
    source: Literal["coco-captions"]
    path: str
    root: str = ""
    """The pictures' folder; if empty the file's own folder, or the one above `annotations`"""
    task: Literal["captions"] = "captions"
    protocol: CaptionProtocol = "vse++"

    own_splits = True
    pictures_elsewhere = True

    def published_as(self) -> str:
        return "coco"

    def open(self) -> Dataset:
        """The pictures in the file's order, each with its captions in theirs; a group is a picture.

        Pictures without a caption are left out.
        """
        path = located(self, self.path)
        content = read_json(path)
        if not is_coco_captions(content):
            raise BrokenInput(
                f"{path} is no file of COCO's captions: images, and annotations of them."
            )
        try:
            name_of = {image["id"]: image["file_name"] for image in content["images"]}
            texts: dict[Any, list[str]] = {number: [] for number in name_of}
            for annotation in content["annotations"]:
                texts[annotation["image_id"]].append(annotation["caption"].strip())
        except (KeyError, TypeError, AttributeError) as error:
            raise BrokenInput(f"{path} lacks or misshapes {error}.") from None
        kept = {n: [t for t in texts[n] if t][: KEPT[self.protocol]] for n in name_of}
        without = [name_of[number] for number, found in kept.items() if not found]
        kept = {number: found for number, found in kept.items() if found}
        keys = [name_of[number] for number in kept]
        root = located(self, self.root) if self.root else pictures_root(path)
        found = find_pictures(root, keys, folders(path), self.broken_images)
        files = Files(root, found, self.reading())
        return Dataset(
            source=f"coco-captions {path.name}",
            keys=keys,
            read=files.read,
            captions=list(kept.values()),
            groups=list(range(len(keys))),
            protocol=caption_facts(self.protocol),
            stamp=files.stamp,
            digest=files.digest,
            left_out={"without caption": without} if without else {},
        )


def is_coco_captions(content: dict[str, Any]) -> bool:
    """Whether the content of a JSON file has the form of COCO's captions, by its first entries."""
    lists = [content.get("images"), content.get("annotations")]
    first = [part[0] if isinstance(part, list) and part else None for part in lists]
    needed: list[set[str]] = [{"id", "file_name"}, {"image_id", "caption"}]
    return all(
        isinstance(entry, dict) and keys <= entry.keys()
        for entry, keys in zip(first, needed, strict=True)
    )


def pictures_root(path: Path) -> Path:
    """As the archives unpack: annotations/captions_val2014.json beside the folder val2014."""
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def folders(path: Path) -> list[str]:
    """captions_val2014.json names pictures of the folder val2014."""
    own = path.stem.removeprefix("captions_")
    return [own, "", "images", f"images/{own}"]
