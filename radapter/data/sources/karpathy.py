"""Karpathy's split files of Flickr30K, COCO and Flickr8K: captions and a split for each picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from radapter.data.captions import CaptionProtocol, pictures_with_captions
from radapter.data.dataset import Dataset
from radapter.data.json_files import read_object
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, located
from radapter.errors import BrokenInput

SPLITS = {
    "train": ("train", "restval"),
    "validation": ("val",),
    "test": ("test",),
    "all": ("train", "restval", "val", "test"),
}
"""Our names and the file's. restval is the rest of COCO's validation pictures, and part of what is
trained on: 82,783 + 30,504 = 113,287 pictures."""
FOLDERS = ("", "flickr30k-images", "images")


class KarpathyData(Data):
    """Karpathy's split files: dataset_flickr30k.json, dataset_coco.json and others of that form."""

    convention = PUBLISHED
    source: Literal["karpathy"]
    named_by = ("path", "root")
    path: str
    """The split file."""
    root: str = ""
    """The folder of the pictures. Empty: the file's own folder. Flickr30K's pictures lie in it or
    in its folder flickr30k-images, COCO's in its folders train2014 and val2014."""
    split: Literal["train", "validation", "test", "all"] = "train"
    """Which pictures are taken. `train` has COCO's restval too; `validation` is what the file calls
    val."""
    task: Literal["captions"] = "captions"
    protocol: CaptionProtocol = "vse++"
    """Which captions of a picture count. `vse++`: the first five, as in VSE++ and most papers
    since. `clip-benchmark`: all. Of COCO's test split that is 25,000 captions or 25,010."""

    own_splits = True
    pictures_elsewhere = True

    def published_as(self) -> str:
        stem = Path(self.path).stem
        return next((name for name in ("coco", "flickr30k") if name in stem), stem)

    def is_set_of(self, trained: Data) -> bool:
        """The name of the file says what set it is."""
        return isinstance(trained, KarpathyData) and Path(trained.path).name == Path(self.path).name

    def open(self) -> Dataset:
        """The pictures of a split, with their captions.

        Keys are the file's own names (val2014/COCO_val2014_000000391895.jpg), wherever they lie.
        """
        path = located(self, self.path)
        content = _read(path)
        pictures: list[tuple[str, list[str]]] = []
        for number, image in enumerate(content["images"]):
            try:
                if image["split"] not in SPLITS[self.split]:
                    continue
                folder = image.get("filepath")
                name = f"{folder}/{image['filename']}" if folder else image["filename"]
                texts = [sentence["raw"].strip() for sentence in image["sentences"]]
            except (KeyError, TypeError, AttributeError) as error:
                raise BrokenInput(f"{path}: {error} of image {number} is malformed.") from None
            if not any(texts):
                raise BrokenInput(f"{path}: {name} has no captions.")
            pictures.append((name, texts))
        root = located(self, self.root) if self.root else path.parent
        source = f"karpathy {path.name}, {self.split}"
        return pictures_with_captions(self, source, pictures, root, FOLDERS, self.protocol)

    def sizes(self) -> dict[str, dict[str, int]]:
        """How many pictures the file lists for each of its own splits; no picture is looked for."""
        content = _read(located(self, self.path))
        splits = Counter(str(image.get("split")) for image in content["images"])
        return {"splits": dict(splits)}

    def scored(self) -> Data | None:
        if "test" not in self.sizes()["splits"]:
            return None
        return self.model_copy(update={"split": "test"})


def is_karpathy(content: dict[str, Any]) -> bool:
    """Whether the content of a JSON file has Karpathy's form, by its first image."""
    images = content.get("images")
    first = images[0] if isinstance(images, list) and images else None
    return isinstance(first, dict) and {"filename", "split", "sentences"} <= first.keys()


def _read(path: Path) -> dict[str, Any]:
    content = read_object(path, "data.path")
    if not is_karpathy(content):
        raise BrokenInput(
            f"{path} is not in Karpathy's form: `images` with filename, split and sentences."
        )
    return content
