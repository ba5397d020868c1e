"""CIRR (Liu et al., 2021): pictures of NLVR2, an edit of each by people, six similar ones a set.

    CIRR/cirr/captions/cap.rc2.{train,val,test1}.json
    CIRR/cirr/image_splits/split.rc2.{train,val,test1}.json
    CIRR/dev/dev-244-0-img0.png  CIRR/test1/...  CIRR/train/34/...

As published: all pictures of the split but the reference are ranked, and for subset recall the
other five of the reference's set. The right pictures of test1 are on a server only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from radapter.data.composed import edited, place_of
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.json_files import read_json, read_list
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, first_folder
from radapter.errors import BrokenInput

USUAL = ("CIRR", "cirr_dataset", "cirr")
NAMES = {"train": "train", "validation": "val", "test": "test1"}
"""Our names of splits and the set's"""
MEASURED = ("r1", "r5", "r10", "r50", "subset_r1", "subset_r2", "subset_r3")


class CirrData(Data):
    """CIRR: photos of NLVR2, each with what is to be changed of it and a set of similar ones."""

    convention = PUBLISHED
    source: Literal["cirr"]
    named_by = ("root",)
    root: str | None = None
    """The folder that has `cirr`, `dev` and `test1`. `null`: the one under the data root that has
    one of the usual names."""
    split: Literal["train", "validation", "test"] = "validation"
    """Which edits are taken. The right pictures of `test` are known to CIRR's server alone:
    `radapter eval` writes the files for it."""
    task: Literal["edits"] = "edits"
    no_training = "Its edits have no texts that tell of the right pictures: `source: triplets`"

    def in_words(self) -> str:
        return f"CIRR {NAMES[self.split]}"

    def published_as(self) -> str:
        return "cirr"

    def held_out(self) -> None:
        """None: what is for validation is scored."""

    def open(self) -> Dataset:
        """All pictures of the split, and its edits.

        Raises:
            MissingData: it is not there.
            BrokenInput: a file is damaged, or names a picture that the split has not.
        """
        root = first_folder(self, self.root, USUAL, "CIRR")
        own = NAMES[self.split]
        listed = root / "cirr" / "image_splits" / f"split.rc2.{own}.json"
        pictures = read_json(listed)
        if not isinstance(pictures, dict) or not all(isinstance(p, str) for p in pictures.values()):
            raise BrokenInput(f"{listed} is not a JSON object with the path of each picture.")
        pictures = {name: path.removeprefix("./") for name, path in pictures.items()}
        places = {name: i for i, name in enumerate(pictures)}
        gallery = list(range(len(pictures)))
        path = root / "cirr" / "captions" / f"cap.rc2.{own}.json"
        keys = ["pairid", "reference", "caption", "img_set"]
        keys += [] if self.split == "test" else ["target_hard"]
        edits = []
        for entry in read_list(path, keys):
            target = entry.get("target_hard")
            members = [place_of(places, name, path) for name in entry["img_set"]["members"]]
            reference = place_of(places, entry["reference"], path)
            edits.append(
                Edit(
                    name=str(entry["pairid"]),
                    reference=reference,
                    texts=(str(entry["caption"]),),
                    targets=() if target is None else (place_of(places, target, path),),
                    gallery=gallery,
                    subset=tuple(i for i in members if i != reference),
                )
            )
        said = "all pictures of the split, without the reference; subset: the others of its set"
        return edited(self, self.in_words(), root, pictures, edits, MEASURED, said)

    def for_server(
        self, first: Mapping[str, list[str]], of_subset: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """Recall and subset recall are two files."""
        lists = {"recall": first, "recall_subset": of_subset}
        return {
            f"cirr-{metric}.json": {"version": "rc2", "metric": metric, **found}
            for metric, found in lists.items()
        }
