"""What of a data set can be scored; the rest is left out, by reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from PIL import Image

from radapter.classes import first_of_name, key_of
from radapter.data.dataset import Dataset
from radapter.data.left_out import merged, some
from radapter.errors import BrokenInput


def among(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The data set with the classes of a model to choose from, whichever it has itself.

    Pictures of other classes are left out, as `in no class`; its protocol says what differs.

    Raises:
        BrokenInput: it has no class of these.
    """
    if list(dataset.class_names) == list(names):
        return dataset
    number = {key_of(names[first]): first for first in first_of_name(names)}
    called = dataset.class_names
    own = [key_of(name) for name in called]
    kept = [i for i, label in enumerate(dataset.labels) if own[label] in number]
    outside = [i for i, label in enumerate(dataset.labels) if own[label] not in number]
    strange = list(dict.fromkeys(called[dataset.labels[i]] for i in outside))
    if not kept:
        raise BrokenInput(
            f"{dataset.source} has no picture of a class that the model was trained on. "
            f"Its classes: {some(strange)}. Those of the model: {some(names)}."
        )
    labels = [number[own[dataset.labels[i]]] for i in kept]
    there = set(labels)
    absent = [names[first] for first in number.values() if first not in there]
    said = [f"{len(number)} of the model"]
    said += [f"no pictures of {some(absent)}"] if absent else []
    said += [f"left out, as the model does not know them: {some(strange)}"] if strange else []
    return dataclasses.replace(
        dataset.select(kept),
        labels=labels,
        class_names=list(names),
        answers=[],
        protocol=dataset.protocol | {"classes": "; ".join(said)},
        left_out=merged(dataset.left_out, {"in no class": [dataset.keys[i] for i in outside]}),
    )


def mask_of(dataset: Dataset, index: int, picture: Image.Image) -> Any:
    """The mask of the picture at an index, which is that one, see `Dataset.mask`.

    Raises:
        BrokenInput: it cannot be read, or is of another size.
    """
    assert dataset.mask is not None
    mask = dataset.mask(index)
    if mask.shape != (picture.height, picture.width):
        raise BrokenInput(
            f"The mask of {dataset.keys[index]} has {mask.shape[1]} x {mask.shape[0]} pixels, and "
            f"the picture {picture.width} x {picture.height}."
        )
    return mask


def captioned(dataset: Dataset) -> Dataset:
    """The pictures that have a caption: no query could find another.

    Raises:
        BrokenInput: there is none.
    """
    texts = [[text for text in own if text.strip()] for own in dataset.captions]
    kept = [i for i, own in enumerate(texts) if own]
    if not kept:
        raise BrokenInput(f"{dataset.source} has no picture with a caption.")
    if texts == dataset.captions and len(kept) == len(dataset):
        return dataset
    without = [key for key, own in zip(dataset.keys, texts, strict=True) if not own]
    return dataclasses.replace(
        dataclasses.replace(dataset, captions=texts).select(kept),
        left_out=merged(dataset.left_out, {"without caption": without}),
    )
