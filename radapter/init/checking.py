"""What a set needs before a recipe is written for it, and how much of it cannot be read."""

from __future__ import annotations

import math

from radapter.data import Dataset
from radapter.data.left_out import listed
from radapter.data.settings import Data
from radapter.errors import BrokenInput

SAMPLE = 64  # pictures that are opened
MOST = 0.1
"""The share of pictures that a recipe may pass over: with more it is another set"""
GONE = -1  # the size of a file that is not there


def items_of(dataset: Dataset) -> str:
    """What its items are called."""
    return "pictures" if dataset.frames is None else "clips"


def check_enough(dataset: Dataset, settings: Data) -> None:
    """Raises BrokenInput for a set that nothing can be learned from."""
    if settings.task == "captions":
        pairs = sum(map(len, dataset.captions))
        if pairs < 2:
            raise BrokenInput(f"{dataset.source} has {pairs} pair: training needs at least two.")
        if len(dataset) == 1:
            one = items_of(dataset).removesuffix("s")
            raise BrokenInput(f"{dataset.source} has 1 {one}: there is nothing to tell apart.")
    elif len(set(dataset.labels)) == 1:
        name = dataset.class_names[dataset.labels[0]]
        raise BrokenInput(
            f"All {len(dataset):,} {items_of(dataset)} of {dataset.source} are of one class, "
            f"'{name}': there is nothing to tell apart, and any model scores 100. Add another "
            "class."
        )


def unreadable(dataset: Dataset) -> tuple[int, list[str], int]:
    """Look for files that are not there, and open some pictures, spread over all.

    Returns:
        how many were opened, a message for each that cannot be read, and the limit of a recipe that
        passes over as many as that suggests.

    Raises:
        BrokenInput: none can be read, or more than a tenth is missing or broken.
    """
    gone, items = [], items_of(dataset)
    if dataset.stamp is not None:
        gone = [i for i in range(len(dataset)) if dataset.stamp(i)[0] == GONE]
    if len(gone) > MOST * len(dataset):
        names = listed([dataset.keys[i] for i in gone[:3]], len(gone))
        raise BrokenInput(
            f"{len(gone):,} of {len(dataset):,} {items} of {dataset.source} are missing: {names}. "
            "Put them where the others are, name their folder with --pictures, or remove them from "
            "the table or list: no recipe is written where more than a tenth is missing."
        )
    lost = set(gone)
    there = [i for i in range(len(dataset)) if i not in lost]
    number = min(SAMPLE, len(there))
    broken = []
    for k in range(number):
        try:
            dataset.read(there[k * len(there) // number])
        except BrokenInput as error:
            broken.append(str(error))
    if len(broken) == number:
        raise BrokenInput(f"None of {number} {items} of {dataset.source} can be read: {broken[0]}")
    share = len(broken) / number
    if len(gone) + share * len(there) > MOST * len(dataset):
        raise BrokenInput(
            f"{len(broken)} of {number} {items} of {dataset.source} that were opened are "
            f"broken: {'; '.join(broken[:3])}. Repair or remove them: no recipe is "
            "written where more than a tenth is broken."
        )
    likely = len(broken) if number == len(there) else math.ceil(2 * share * len(there))
    limit = min(len(gone) + likely, int(MOST * len(dataset)))
    one = "Picture" if items == "pictures" else "Video"
    missing = [f"{one} is missing: {dataset.keys[i]}" for i in gone]
    return number, missing + broken, limit
