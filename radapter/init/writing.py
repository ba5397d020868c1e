"""How much was found, a look at some of the pictures, and the recipe that follows from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip import get_tokenizer
from pydantic import TypeAdapter

from radapter.data import Dataset, open_data
from radapter.data.copies import find_copies, lines_of_copies
from radapter.data.left_out import LeftOut, merged, summary_of
from radapter.data.names_file import is_id
from radapter.data.opening import DataSource, split_of
from radapter.data.settings import Data, HeldOut
from radapter.data.texts import cut_texts
from radapter.init.checking import check_enough, items_of, unreadable
from radapter.init.found import Task
from radapter.init.layouts import look
from radapter.init.splits import check_unmixed
from radapter.init.text import MODEL, Part, recipe_text, size_of
from radapter.names import slug

CAPTIONS = 20_000  # that are counted in tokens
FEW = 1_000  # pictures: a tenth of fewer says little
HELD_OUT = 5_000  # pictures: more say little more


@dataclass(frozen=True)
class Start:
    """A recipe for what was found."""

    name: str
    text: str
    summary: dict[str, Any]
    """What was found: kind, items (pictures or clips), pictures (how many), classes or captions,
    held out, sampled, broken, left out, notes"""
    left_out: LeftOut
    """Names of what was passed over, by reason"""


def start(
    path: str,
    *,
    name: str | None = None,
    pictures: str | None = None,
    split: str | None = None,
    task: Task | None = None,
) -> Start:
    """Look at a folder or file and write a recipe that trains on it as it is.

    Args:
        path: what to train on.
        name: the recipe's name; None: from the path.
        pictures: the folder that a table or caption file names pictures in, if it is elsewhere.
        split: the split to train on; "none": what looks like splits is none.
        task: what to train on, where there are both classes and captions.

    Raises:
        BrokenInput: there is nothing there, it is damaged, or too little to train on.
        UsageError: it is of no known form, or there are two readings.
    """
    found = look(path, pictures, split, task)
    settings = _settings(found.data)
    held = isinstance(settings, HeldOut)
    whole = open_data(_whole(settings))
    items = items_of(whole)
    says_its_split = settings.own_splits or {"dataset_split", "listed_in"} & found.data.keys()
    if split != "none" and not says_its_split:
        check_unmixed(whole.keys, whole.source, items)
    check_enough(whole, settings)
    train = part_of(whole, found.data)
    validation, kept = None, None
    if found.validation is not None:
        # A part with a source of its own is described whole; else only what differs is.
        common = {} if "source" in found.validation else found.data
        data = common | found.validation | {"split": "all"}
        validation = part_of(open_data(_whole(_settings(data))), data)
    elif held:
        settings = _hold_out(whole, settings)
        if settings.hold_out:
            train.data["hold_out"] = settings.hold_out
        train.dataset = split_of(whole, settings)
        kept = split_of(whole, settings.model_copy(update={"split": "validation"}))
    texts = settings.task == "captions"
    pairs = sum(map(len, train.dataset.captions)) if texts else len(train.dataset)
    parts = [train, validation] if validation else [train]
    left_out = merged(*(part.dataset.left_out for part in parts))
    copies = find_copies(train.dataset, validation.dataset if validation else kept)
    notes = [*found.notes, *train.dataset.notes, *_notes(whole, settings), *lines_of_copies(copies)]
    summary = {
        "kind": found.what,
        "items": items,
        "pictures": len(whole),
        "captions": sum(map(len, whole.captions)) if texts else None,
        "classes": None if texts else _classes(whole),
        "held_out": len(whole) - len(train.dataset),
        "sampled": sum(part.sampled for part in parts),
        "broken": [message for part in parts for message in part.broken],
        "left_out": summary_of(left_out),
        "notes": list(dict.fromkeys(notes)),
    }
    name = name or _name(path)
    scored = f"the held-out {items}" if held and settings.hold_out else None
    if validation is not None or found.own_validation:
        scored = "the validation split"
    size = size_of(pairs, items)
    text = recipe_text(name, path, settings, train, validation, summary, size, scored, found.taken)
    return Start(name, text, summary, left_out)


# ---------------------------------------------------------------- what is there


def _settings(data: dict[str, Any]) -> Any:
    settings: Any = TypeAdapter(DataSource).validate_python(data)
    return settings


def _whole(settings: Any) -> Any:
    """All that is there. Clips that are missing are counted as pictures are, and not refused."""
    update = {"split": "all"} if isinstance(settings, HeldOut) else {}
    return settings.with_missing().model_copy(update=update)


def part_of(dataset: Dataset, data: dict[str, Any]) -> Part:
    """Open some pictures, and allow as many broken ones as that suggests."""
    number, broken, limit = unreadable(dataset)
    return Part(dataset, data | ({"broken_images": limit} if broken else {}), number, broken)


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
        return _captions_cut(whole)
    names = whole.class_names
    if names and all(map(is_id, names)):
        return [
            f"the classes are called {names[0]}, {names[-1]}, ...: the model reads these names, so "
            "call them by words (data.class_names_in takes a file of names)."
        ]
    return []


def _captions_cut(whole: Dataset) -> list[str]:
    tokenizer = get_tokenizer(MODEL.partition(":")[0])
    texts = [text for some in whole.captions for text in some]
    some = [text.rstrip() for text in texts[:: max(1, len(texts) // CAPTIONS)]]
    cut = set(cut_texts(tokenizer, some))
    if not cut:
        return []
    number = sum(text in cut for text in some)
    of = f"{len(some):,} captions" + (" that were counted" if len(some) < len(texts) else "")
    return [
        f"{number:,} of {of} are longer than the {tokenizer.context_length} tokens that CLIP "
        "reads: what is behind is cut off, and captions that differ there alone become one."
    ]


def _name(path: str) -> str:
    return slug(Path(path).resolve().stem).strip("-._") or "my-data"
