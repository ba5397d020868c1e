"""Triplets to train composed retrieval on: a picture, what is to be changed of it, and a text that
tells of the picture with that changed. A line of JSON each:

    {"image": "1.jpg", "edit": "make it blue", "target": "a blue car"}
    {"image": "2.jpg", "caption": "two red apples on a table"}

Of a caption alone, edits are made by rule: see `data.swaps`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from radapter.data.composed import edited
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.left_out import merged
from radapter.data.settings import HeldOut, MissingData, located
from radapter.data.swaps import swaps_of
from radapter.errors import BrokenInput

FORMS = ({"image", "edit", "target"}, {"image", "caption"})


class TripletsData(HeldOut):
    """Pictures, each with what is to be changed of it and a text that tells of the changed picture,
    or with a caption from which such edits are made by rule: lines of JSON."""

    source: Literal["triplets"]
    named_by = ("path", "root")
    path: Annotated[str, Field(examples=["triplets.jsonl"])]
    """The file: in each line `image`, `edit` and `target`, or `image` and `caption`."""
    root: str = ""
    """The folder that the paths of pictures start from. Empty: the file's own folder."""
    task: Literal["edits"] = "edits"

    def in_words(self) -> str:
        return f"triplets in {Path(self.path).name}"

    def open(self) -> Dataset:
        """Every picture that is named, and its edits; those of one picture lie in several lines.

        Captions in which the rules find nothing to change are left out.

        Raises:
            MissingData: the file or the folder is not there, or none of the pictures.
            BrokenInput: a line is no such row, or names a picture that is not there.
        """
        path = located(self, self.path)
        places: dict[str, int] = {}
        edits: list[Edit] = []
        unchanged: list[str] = []
        for number, row in read_rows(path):
            made = [(row["edit"], row["target"])] if "edit" in row else swaps_of(row["caption"])
            if not made:
                unchanged.append(f"line {number}")
                continue
            place = places.setdefault(row["image"], len(places))
            edits += [
                Edit(f"{number}.{n}", place, (edit,), (), (), told=told)
                for n, (edit, told) in enumerate(made)
            ]
        if not edits:
            raise BrokenInput(f"{path} has no captions with anything to change by rule.")
        root = located(self, self.root) if self.root else path.parent
        pictures = {name: name for name in places}
        dataset = edited(self, f"triplets in {path}", root, pictures, edits, [], "none")
        left_out = merged(dataset.left_out, {"without edit": unchanged})
        return dataclasses.replace(dataset, left_out=left_out)


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of such a file, each with the number of its line; empty lines count for nothing.

    Raises:
        MissingData: there is no such file.
        BrokenInput: it is no text, or a line is no such row.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise MissingData(
            f"No such file: {path}. Correct data.path, or give --data-root."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path} is not a readable text file: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BrokenInput(f"{path}:{number}: no valid JSON: {error}.") from None
        if not isinstance(row, dict) or not any(form <= row.keys() for form in FORMS):
            raise BrokenInput(
                f"{path}:{number}: a row needs image, edit and target, or image and caption."
            )
        wrong = [key for form in FORMS for key in form if not isinstance(row.get(key, ""), str)]
        empty = [key for form in FORMS for key in form if not row.get(key, "x")]
        if wrong or empty:
            raise BrokenInput(f"{path}:{number}: {(wrong or empty)[0]} has to be a text.")
        rows.append((number, row))
    if not rows:
        raise BrokenInput(f"{path} has no rows.")
    return rows
