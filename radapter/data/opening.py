"""What a data section may be, and opening the data that one describes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Field, create_model

from radapter.data import holding_out
from radapter.data.dataset import Dataset
from radapter.data.left_out import FIRST, listed
from radapter.data.settings import Data, HeldOut, Unlabelled
from radapter.errors import BrokenInput, RadapterError, UsageError
from radapter.registry import SOURCES, load

if TYPE_CHECKING:
    DataSource: TypeAlias = Data
    UnlabelledSource: TypeAlias = Any
else:
    DataSource = Annotated[
        Union[tuple(load(SOURCES, name) for name in SOURCES)],  # noqa: UP007
        Field(discriminator="source"),
    ]
    UNLABELLED = {
        f"Unlabelled{kind.__name__}": create_model(
            f"Unlabelled{kind.__name__}",
            __base__=(Unlabelled, kind),
            __module__=__name__,
            __doc__=kind.__doc__,
        )
        for kind in (load(SOURCES, name) for name in SOURCES)
    }
    globals().update(UNLABELLED)  # where pickle looks for them
    UnlabelledSource = Annotated[
        Union[tuple(UNLABELLED.values())],  # noqa: UP007
        Field(discriminator="source"),
    ]
"""The section of a registered source; the second has the keys of `Unlabelled`, too"""


def open_data(settings: Data) -> Dataset:
    """The data that a recipe or suite describes.

    Raises:
        BrokenInput: a file or folder is missing, empty or damaged.
        UsageError: the description does not fit the source, such as an unknown style.
        MissingDependency: the source needs a package that is not installed.
    """
    dataset = _named_once(settings.open())
    if settings.task == "classification" and dataset.keys and not dataset.labels:
        raise UsageError(f"{dataset.source} has no classes: `task: captions` trains on its texts.")
    if settings.task == "captions" and dataset.keys and not dataset.captions:
        raise UsageError(f"{dataset.source} has no captions: use `task: classification`.")
    if settings.task == "segmentation" and dataset.keys and not dataset.mask:
        raise UsageError(f"{dataset.source} has no masks: use `task: classification`.")
    if settings.task == "edits" and dataset.keys and not dataset.edits:
        raise UsageError(f"{dataset.source} has no edits: use another `task`.")
    return _taken(dataset, settings)


def open_unlabelled(settings: Any) -> Dataset:
    """The pictures of a section `unlabelled`, and their captions if it asks for them; no classes.

    Raises:
        BrokenInput, MissingDependency: see `open_data`.
        UsageError: captions are asked for, and there are none.
    """
    if settings.texts:
        dataset = _named_once(settings.model_copy(update={"task": "captions"}).open())
        if dataset.keys and not all(dataset.captions or [[]]):
            raise UsageError(
                f"unlabelled.texts asks for captions, and {dataset.source} has none for some "
                "pictures or all. Set unlabelled.texts=false."
            )
    else:
        dataset = _named_once(settings.open_pictures())
    dataset = _taken(dataset, settings)
    captions = dataset.captions if settings.texts else []
    return dataclasses.replace(dataset, labels=[], class_names=[], answers=[], captions=captions)


def _named_once(dataset: Dataset) -> Dataset:
    """The data set, or BrokenInput if pictures share a name."""
    twice = [key for key, number in Counter(dataset.keys).items() if number > 1]
    if twice:
        raise BrokenInput(
            f"{dataset.source} has {len(twice)} names that several pictures share, such "
            f"as {twice[0]}. Give every picture a name of its own."
        )
    return dataset


def _taken(dataset: Dataset, settings: Data) -> Dataset:
    """What a section takes of all the pictures that it describes."""
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
    if settings.task == "classification" and settings.hold_out_by == "class" and dataset.labels:
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
