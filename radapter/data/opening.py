"""What a data section may be, and opening the data that one describes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from radapter.data import holding_out
from radapter.data.dataset import Dataset
from radapter.data.left_out import FIRST, listed
from radapter.data.settings import Data, HeldOut
from radapter.errors import BrokenInput, RadapterError, UsageError
from radapter.registry import SOURCES, load

if TYPE_CHECKING:
    DataSource: TypeAlias = Data
else:
    DataSource = Annotated[
        Union[tuple(load(SOURCES, name) for name in SOURCES)],  # noqa: UP007
        Field(discriminator="source"),
    ]
"""The section of a registered source"""


def open_data(settings: Data) -> Dataset:
    """The data that a recipe or suite describes.

    Raises:
        BrokenInput: a file or folder is missing, empty or damaged.
        UsageError: the description does not fit the source, such as an unknown style.
        MissingDependency: the source needs a package that is not installed.
    """
    dataset = settings.open()
    twice = [key for key, number in Counter(dataset.keys).items() if number > 1]
    if twice:
        raise BrokenInput(
            f"{dataset.source} has {len(twice)} names that several pictures share, such "
            f"as {twice[0]}. Give every picture a name of its own."
        )
    if settings.task == "classification" and dataset.keys and not dataset.labels:
        raise UsageError(f"{dataset.source} has no classes: `task: captions` trains on its texts.")
    if settings.task == "captions" and dataset.keys and not dataset.captions:
        raise UsageError(f"{dataset.source} has no captions: use `task: classification`.")
    if settings.task == "segmentation" and dataset.keys and not dataset.mask:
        raise UsageError(f"{dataset.source} has no masks: use `task: classification`.")
    if settings.task == "edits" and dataset.keys and not dataset.edits:
        raise UsageError(f"{dataset.source} has no edits: use another `task`.")
    facts = settings.reading_facts()
    dataset = dataclasses.replace(dataset, protocol=dataset.protocol | facts)
    if isinstance(settings, HeldOut):
        dataset = split_of(dataset, settings)
    dataset = settings.drawn(dataset)
    if not len(dataset):
        raise BrokenInput(f"{dataset.source} has no pictures.")
    return dataset


def same_pictures(one: Data | None, other: Data | None) -> bool:
    """Whether two sections are of the same pictures, however they are drawn and changed. False if
    the data of one is not there any more, and two of none are the same."""
    if one is None or other is None or one == other:
        return one == other
    try:
        return open_data(one).fingerprint() == open_data(other).fingerprint()
    except RadapterError:
        return False


def split_of(dataset: Dataset, settings: HeldOut) -> Dataset:
    """Hold out a share, by class where there are classes: see `holding_out`.

    Pictures of one group stay together: a thing that was trained on is not held out.
    """
    if settings.split == "all" or (settings.split == "train" and not settings.hold_out):
        return dataset
    units = dataset.group_names or dataset.keys
    notes = list(dataset.notes)
    if settings.task == "classification" and settings.hold_out_by == "class":
        held = holding_out.by_class(units, dataset.labels, settings.hold_out)
        small = [dataset.class_names[i] for i in holding_out.too_small(units, dataset.labels)]
        if small:
            what = "classes have" if len(small) > 1 else "class has"
            notes.append(
                f"{len(small):,} {what} a single picture, which is trained on; nothing of them is "
                f"held out: {listed(small[:FIRST], len(small))}"
            )
    else:
        held = holding_out.by_hash(units, settings.hold_out)
    wanted = settings.split == "validation"
    chosen = dataset.select([i for i, unit in enumerate(units) if (unit in held) == wanted])
    return dataclasses.replace(chosen, notes=notes)
