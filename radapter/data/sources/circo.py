"""CIRCO (Baldrati et al., 2023): photos of COCO's unlabelled ones, several right pictures an edit.

    CIRCO/annotations/{val,test}.json
    CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json
    CIRCO/COCO2017_unlabeled/unlabeled2017/000000243611.jpg

As published: all 123,403 pictures are ranked, the reference among them. The right pictures of the
test split are on a server only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from radapter.data.composed import edited, place_of
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.json_files import read_list, read_object
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, first_folder
from radapter.errors import BrokenInput

USUAL = ("CIRCO", "circo")
COCO = "COCO2017_unlabeled"
MEASURED = ("map_5", "map_10", "map_25", "map_50")


class CircoData(Data):
    """CIRCO: photos of COCO's unlabelled ones, with what is to be changed of them."""

    convention = PUBLISHED
    source: Literal["circo"]
    named_by = ("root",)
    root: str | None = None
    """The folder that has `annotations` and `COCO2017_unlabeled`. `null`: the one under the data
    root that has one of the usual names."""
    split: Literal["validation", "test"] = "validation"
    """Which edits are taken. The right pictures of `test` are known to CIRCO's server alone:
    `radapter eval` writes the file for it."""
    task: Literal["edits"] = "edits"
    no_training = "CIRCO is for testing only: do not train on it"

    def in_words(self) -> str:
        return f"CIRCO {self.split}"

    def published_as(self) -> str:
        return "circo"

    def held_out(self) -> None:
        """None: what is for validation is scored."""

    def open(self) -> Dataset:
        """All pictures, and the edits of the split.

        Raises:
            MissingData: it is not there.
            BrokenInput: a file is damaged, or names a picture that there is not.
        """
        root = first_folder(self, self.root, USUAL, "CIRCO")
        listed = root / COCO / "annotations" / "image_info_unlabeled2017.json"
        try:
            names = {int(p["id"]): str(p["file_name"]) for p in read_object(listed)["images"]}
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenInput(f"{listed} is malformed: {error}.") from None
        places = {number: i for i, number in enumerate(names)}
        gallery = list(range(len(names)))
        own = "val" if self.split == "validation" else "test"
        path = root / "annotations" / f"{own}.json"
        keys = ["id", "reference_img_id", "relative_caption"]
        keys += [] if self.split == "test" else ["gt_img_ids"]
        edits = [
            Edit(
                name=str(entry["id"]),
                reference=place_of(places, entry["reference_img_id"], path),
                texts=(str(entry["relative_caption"]),),
                targets=tuple(place_of(places, n, path) for n in entry.get("gt_img_ids", ())),
                gallery=gallery,
                without_reference=False,
            )
            for entry in read_list(path, keys)
        ]
        pictures = {str(number): f"{COCO}/unlabeled2017/{name}" for number, name in names.items()}
        said = "all pictures, with the reference; every right picture counts"
        return edited(self, self.in_words(), root, pictures, edits, MEASURED, said)

    def for_server(
        self, first: Mapping[str, list[str]], of_subset: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """By the number of an edit the numbers of pictures."""
        found = {name: [int(key) for key in keys] for name, keys in first.items()}
        return {"circo.json": found}
