"""FashionIQ (Wu et al., 2021): pictures of clothes from a shop, two people's wordings an edit.

    FashionIQ/captions/cap.{dress,shirt,toptee}.{train,val,test}.json
    FashionIQ/image_splits/split.{dress,shirt,toptee}.{train,val,test}.json
    FashionIQ/images/B009PMCJLW.jpg

Both wordings make one text, as `FIRST and SECOND`. Published code of zero-shot composed retrieval
(SEARLE, LinCIR) takes the mean of the features of both orders, and so does this.
"""

from __future__ import annotations

from typing import Literal

from radapter.data.composed import edited, place_of
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.json_files import read_list
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, first_folder

USUAL = ("FashionIQ", "fashionIQ_dataset", "fashion-iq", "fashioniq")
MEASURED = ("r10", "r50")
AROUND = ".?, "
"""What is cut off both ends of a wording, as published code does"""


class FashionIQData(Data):
    """FashionIQ: dresses, shirts and tops of a shop, with what is to be changed of them."""

    convention = PUBLISHED
    source: Literal["fashioniq"]
    named_by = ("root", "category")
    root: str | None = None
    """The folder that has `captions`, `image_splits` and `images`. `null`: the one under the data
    root that has one of the usual names."""
    category: Literal["dress", "shirt", "toptee"]
    """Which clothes are taken: each category is searched by itself."""
    split: Literal["train", "validation"] = "validation"
    """Which edits are taken. Those of the test split are not published."""
    protocol: Literal["original", "val"] = "original"
    """What is ranked. `original`: all pictures of the category's split, as in most papers. `val`:
    only those that its edits name, which is easier."""
    task: Literal["edits"] = "edits"
    no_training = "Its edits have no texts that tell of the right pictures: `source: triplets`"

    def in_words(self) -> str:
        return f"FashionIQ {self.category}, {self.split}"

    def published_as(self) -> str:
        return f"fashioniq-{self.category}"

    def held_out(self) -> None:
        """None: what is for validation is scored."""

    def open(self) -> Dataset:
        """The pictures of the category, and its edits.

        Raises:
            MissingData: it is not there.
            BrokenInput: a file is damaged, or names a picture that the split has not.
        """
        root = first_folder(self, self.root, USUAL, "FashionIQ")
        own = "val" if self.split == "validation" else "train"
        path = root / "captions" / f"cap.{self.category}.{own}.json"
        entries = read_list(path, ("candidate", "target", "captions"))
        listed = read_list(root / "image_splits" / f"split.{self.category}.{own}.json")
        names = [str(name) for name in listed]
        if self.protocol == "val":
            named = {str(entry[key]) for entry in entries for key in ("candidate", "target")}
            names = [name for name in names if name in named]
        pictures = {name: f"images/{name}.jpg" for name in names}
        places = {name: i for i, name in enumerate(pictures)}
        gallery = list(range(len(pictures)))
        edits = [
            Edit(
                name=str(number),
                reference=place_of(places, entry["candidate"], path),
                texts=_texts([str(text) for text in entry["captions"]]),
                targets=(place_of(places, entry["target"], path),),
                gallery=gallery,
                without_reference=False,
            )
            for number, entry in enumerate(entries)
        ]
        which = "that its edits name" if self.protocol == "val" else "of the category's split"
        said = f"all pictures {which}, with the reference"
        return edited(self, self.in_words(), root, pictures, edits, MEASURED, said)

    def has_counts_of(self, other: Data) -> bool:
        return isinstance(other, FashionIQData) and other.protocol == self.protocol


def _texts(wordings: list[str]) -> tuple[str, ...]:
    """All wordings as one text, and the same the other way round."""
    cut = [wording.strip(AROUND) for wording in wordings]
    return tuple(dict.fromkeys((" and ".join(cut), " and ".join(reversed(cut)))))
