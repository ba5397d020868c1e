"""How much was found, a look at some of the pictures, and the recipe that follows from it."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from radapter.data import Dataset, open_data
from radapter.data.dataset import split_of
from radapter.errors import BrokenInput
from radapter.recipe_data import Data, HeldOut
from radapter.recipe_sources import DataSource
from radapter.starting.layouts import look
from radapter.starting.text import Part, recipe_text, size_of

SAMPLE = 64  # pictures that are opened
FEW = 1_000  # pictures: a tenth of fewer says little
HELD_OUT = 5_000  # pictures: more say little more


@dataclass(frozen=True)
class Start:
    """A recipe for what was found."""

    name: str
    text: str
    summary: dict[str, Any]
    """What was found: kind, pictures, classes or captions, held out, sampled, broken, notes"""


def start(path: str, *, name: str | None = None, pictures: str | None = None) -> Start:
    """Look at a folder or file and write a recipe that trains on it as it is.

    Args:
        path: what to train on; see `radapter.starting.look`.
        name: the recipe's name; None: from the path.
        pictures: where the pictures of a table or caption file are, if elsewhere.

    Raises:
        BrokenInput: there is nothing there, it is damaged, or too little to train on.
        UsageError: it is of no known form.
    """
    found = look(path, pictures)
    settings = _settings(found.data)
    held = isinstance(settings, HeldOut)
    whole = open_data(settings.model_copy(update={"split": "all"} if held else {}))
    train = part_of(whole, found.data)
    validation = None
    if found.validation is not None:
        data = found.data | found.validation | {"split": "all"}
        validation = part_of(open_data(_settings(data)), data)
    elif held:
        settings = _hold_out(whole, settings)
        if settings.hold_out:
            train.data["hold_out"] = settings.hold_out
        train.dataset = split_of(whole, settings)
    texts = settings.task == "captions"
    pairs = sum(map(len, train.dataset.captions)) if texts else len(train.dataset)
    if pairs < 2:
        raise BrokenInput(f"{whole.source} has {pairs} pair: training needs at least two.")
    parts = [train, validation] if validation else [train]
    notes = found.notes + _notes(whole, settings)
    summary = {
        "kind": found.what,
        "pictures": len(whole),
        "captions": sum(map(len, whole.captions)) if texts else None,
        "classes": None if texts else _classes(whole),
        "held_out": len(whole) - len(train.dataset),
        "sampled": sum(part.sampled for part in parts),
        "broken": [message for part in parts for message in part.broken],
        "notes": notes,
    }
    name = name or _name(path)
    scored = "the held-out pictures" if held and settings.hold_out else None
    if validation is not None or found.own_validation:
        scored = "the validation split"
    text = recipe_text(
        name, path, settings, train, validation, summary, size_of(pairs, len(whole)), scored
    )
    return Start(name, text, summary)


# ---------------------------------------------------------------- what is there


def _settings(data: dict[str, Any]) -> Any:
    settings: Any = TypeAdapter(DataSource).validate_python(data)
    return settings


def part_of(dataset: Dataset, data: dict[str, Any]) -> Part:
    """Open some pictures, spread over all, and allow as many broken ones as that suggests."""
    number = min(SAMPLE, len(dataset))
    broken = []
    for i in range(number):
        try:
            dataset.read(i * len(dataset) // number)
        except BrokenInput as error:
            broken.append(str(error))
    if len(broken) == number:
        raise BrokenInput(f"None of {number} pictures of {dataset.source} can be read: {broken[0]}")
    data = dict(data)
    if broken:
        share = len(broken) / number
        data["broken_images"] = (
            len(broken) if number == len(dataset) else math.ceil(2 * share * len(dataset))
        )
    return Part(dataset, data, number, broken)


def _hold_out(whole: Dataset, settings: HeldOut) -> HeldOut:
    """A share that leaves enough on both sides; which pictures it is, their names decide."""
    first = 0.2 if len(whole) < FEW else min(0.1, float(f"{HELD_OUT / len(whole):.1g}"))
    enough = max(2, 0.75 * first * len(whole))  # of few names, chance may pick hardly any
    for share in (first, 0.25, 0.3, 0.35, 0.4, 0.5):
        settings = settings.model_copy(update={"hold_out": share, "split": "validation"})
        validation = len(split_of(whole, settings))
        settings = settings.model_copy(update={"split": "train"})
        if validation >= enough and len(whole) - validation >= 2:
            return settings
    return settings.model_copy(update={"hold_out": 0.0})


def _classes(whole: Dataset) -> dict[str, Any]:
    sizes = Counter(dict.fromkeys(whole.class_names, 0))
    sizes.update(whole.class_names[label] for label in whole.labels)
    ordered = sizes.most_common()
    return {"number": len(ordered), "smallest": ordered[-1], "largest": ordered[0]}


def _notes(whole: Dataset, settings: Data) -> list[str]:
    if settings.task == "captions":
        return []
    notes = []
    if whole.class_names and all(re.fullmatch(r"\d+|n\d{8}", n) for n in whole.class_names):
        notes.append(
            f"the classes are called {whole.class_names[0]}, {whole.class_names[-1]}, ...: the "
            "model reads these names, so call them by words."
        )
    return notes


def _name(path: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).resolve().stem).strip("-._")
    return name or "my-data"
