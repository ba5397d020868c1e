"""COCO's official caption files: a list of images and one of annotations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from radapter.data.captions import CaptionProtocol, pictures_with_captions
from radapter.data.dataset import Dataset
from radapter.data.json_files import read_object
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import HeldOut, located
from radapter.errors import BrokenInput


class CocoCaptionsData(HeldOut):
    """COCO's official annotations: captions_train2014.json and others of that form."""

    convention = PUBLISHED
    source: Literal["coco-captions"]
    named_by = ("path", "root")
    path: Annotated[str, Field(examples=["coco/annotations/captions_train2014.json"])]
    """The file of captions."""
    root: str = ""
    """The folder of the pictures. Empty: the file's own folder, or the one above `annotations`."""
    task: Literal["captions"] = "captions"
    protocol: CaptionProtocol = "vse++"
    """Which captions of a picture count. `vse++`: the first five. `clip-benchmark`: all."""

    own_splits = True
    pictures_elsewhere = True

    def published_as(self) -> str:
        return "coco"

    def open(self) -> Dataset:
        """The pictures of the file, each with its captions in the file's order."""
        path = located(self, self.path)
        content = read_object(path, "data.path")
        if not is_coco_captions(content):
            raise BrokenInput(
                f"{path} is not a COCO captions file with `images` and `annotations`."
            )
        try:
            name_of = {image["id"]: image["file_name"] for image in content["images"]}
            texts: dict[Any, list[str]] = {number: [] for number in name_of}
            for annotation in content["annotations"]:
                texts[annotation["image_id"]].append(annotation["caption"].strip())
        except (KeyError, TypeError, AttributeError) as error:
            raise BrokenInput(f"{path} is damaged: {error} is missing or malformed.") from None
        if self.root:
            root = located(self, self.root)
        else:  # as the archives unpack: annotations/captions_val2014.json beside the folder val2014
            root = path.parent.parent if path.parent.name == "annotations" else path.parent
        own = path.stem.removeprefix("captions_")  # val2014, the folder of these pictures
        folders = [own, "", "images", f"images/{own}"]
        pictures = [(name_of[number], texts[number]) for number in name_of]
        source = f"coco-captions {path.name}"
        return pictures_with_captions(self, source, pictures, root, folders, self.protocol)


def is_coco_captions(content: dict[str, Any]) -> bool:
    """Whether the content of a JSON file has the form of COCO's captions, by its first entries."""
    lists = [content.get("images"), content.get("annotations")]
    first = [part[0] if isinstance(part, list) and part else None for part in lists]
    needed: list[set[str]] = [{"id", "file_name"}, {"image_id", "caption"}]
    return all(
        isinstance(entry, dict) and keys <= entry.keys()
        for entry, keys in zip(first, needed, strict=True)
    )
