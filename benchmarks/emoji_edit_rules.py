"""What is to be changed of one emoji to have another: rules over the names of concepts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

GENDERS = {
    "man": "make it a man",
    "woman": "make it a woman",
    "person": "make the gender neutral",
}
ONE_OF = {"men": "man", "women": "woman", "people": "person"}
HAIR = {
    "red hair": "with red hair",
    "curly hair": "with curly hair",
    "white hair": "with white hair",
    "bald": "bald",
    "blond hair": "with blond hair",
    "beard": "with a beard",
}
ROLES = ("person role", "person fantasy")
ACTIVITIES = ("person sport", "person activity", "person gesture")

HOURS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "light blue",
    "purple",
    "brown",
    "black",
    "white",
    "pink",
    "grey",
)
COLOURED = ("heart", "circle", "square", "large square", "book", "small diamond", "apple")
CATS = {
    "grinning cat": "grinning",
    "grinning cat with smiling eyes": "grinning with smiling eyes",
    "cat with tears of joy": "laughing to tears",
    "smiling cat with heart-eyes": "in love",
    "kissing cat": "kissing",
    "pouting cat": "angry",
    "crying cat": "crying",
    "cat with wry smile": "with a wry smile",
    "weary cat": "weary",
}
FACES = {
    "grinning cat": "grinning face",
    "grinning cat with smiling eyes": "grinning face with smiling eyes",
    "cat with tears of joy": "face with tears of joy",
    "smiling cat with heart-eyes": "smiling face with heart-eyes",
    "kissing cat": "kissing face",
    "pouting cat": "enraged face",
    "crying cat": "crying face",
    "weary cat": "weary face",
}
WHOLE = ("cow", "pig", "dog", "cat", "tiger", "horse", "rabbit", "mouse")

FAMILIES: dict[str, list[dict[str, str]]] = {
    "colour": [
        {f"{colour} {noun}": f"make it {colour}" for colour in COLOURS} for noun in COLOURED
    ],
    "expression": [CATS],
    "direction": [
        {
            f"backhand index pointing {way}": f"pointing {way}"
            for way in ("left", "right", "up", "down")
        },
        {"left-facing fist": "facing left", "right-facing fist": "facing right"},
        {"leftwards hand": "pointing left", "rightwards hand": "pointing right"},
    ],
    "rank": [
        {
            "1st place medal": "first place",
            "2nd place medal": "second place",
            "3rd place medal": "third place",
        }
    ],
    "state": [
        {
            "speaker low volume": "at low volume",
            "speaker medium volume": "at medium volume",
            "speaker high volume": "at high volume",
            "muted speaker": "muted",
        },
        {
            "closed mailbox with raised flag": "closed, flag raised",
            "closed mailbox with lowered flag": "closed, flag lowered",
            "open mailbox with raised flag": "open, flag raised",
            "open mailbox with lowered flag": "open, flag lowered",
        },
        *({animal: "the whole animal", f"{animal} face": "only the face"} for animal in WHOLE),
        {"locked": "locked", "unlocked": "unlocked"},
        {"hourglass done": "run out", "hourglass not done": "still running"},
        {"battery": "full", "low battery": "nearly empty"},
        {
            "magnifying glass tilted left": "tilted left",
            "magnifying glass tilted right": "tilted right",
        },
        {"chart increasing": "going up", "chart decreasing": "going down"},
        {"thumbs up": "pointing up", "thumbs down": "pointing down"},
    ],
}
"""By kind, of each family the names with what to say to come to each from any other"""
ONE_WAY: dict[str, list[tuple[str, str, str]]] = {
    "species": [
        edit
        for cat, face in FACES.items()
        for edit in ((face, cat, "as a cat"), (cat, face, "as a plain face"))
    ],
    "state": [
        ("bell", "bell with slash", "crossed out"),
        ("umbrella", "umbrella with rain drops", "in the rain"),
        ("sun", "sun with face", "with a face"),
        ("full moon", "full moon face", "with a face"),
        ("new moon", "new moon face", "with a face"),
        ("sunrise", "sunrise over mountains", "over mountains"),
    ],
}
"""By kind: from, to, what to say"""


class Ring(NamedTuple):
    """Names in an order, and what to say for a step of so many."""

    names: Sequence[str]
    steps: Mapping[int, str]
    closed: bool = True


RINGS = {
    "clock": Ring(
        [name for hour in HOURS for name in (f"{hour} o’clock", f"{hour}-thirty")],
        {
            1: "half an hour later",
            2: "one hour later",
            -2: "one hour earlier",
            12: "six hours later",
        },
    ),
    "moon": Ring(
        [
            "new moon", "waxing crescent moon", "first quarter moon", "waxing gibbous moon",
            "full moon", "waning gibbous moon", "last quarter moon", "waning crescent moon",
        ],
        {
            1: "the next phase of the moon",
            -1: "the previous phase of the moon",
            4: "the opposite phase of the moon",
        },
    ),
    "number": Ring(
        [f"keycap: {digit}" for digit in range(10)],
        {1: "one more", -1: "one less", 2: "two more"},
        closed=False,
    ),
    "arrow": Ring(
        [
            "up arrow", "up-right arrow", "right arrow", "down-right arrow",
            "down arrow", "down-left arrow", "left arrow", "up-left arrow",
        ],
        {
            2: "turned a quarter clockwise",
            -2: "turned a quarter anticlockwise",
            4: "pointing the other way",
        },
    ),
}  # fmt: skip


class Figure(NamedTuple):
    """What a name says of a person; a name that is of none is its own `base`."""

    base: str
    gender: str = ""
    hair: str = ""


class Row(NamedTuple):
    """An edit, by names."""

    kind: str
    reference: str
    target: str
    text: str


def figure(name: str, names: Mapping[str, str]) -> Figure:
    """What the name of a concept says; `names` are those of all."""
    known = re.fullmatch(rf"(man|woman|person): ({'|'.join(HAIR)})", name)
    if known:
        return Figure("adult", known[1], known[2])
    if name in GENDERS:
        return Figure("adult", name)
    first, _, rest = name.partition(" ")
    if rest and first in (*GENDERS, *ONE_OF):
        return Figure(rest, ONE_OF.get(first, first))
    if {f"man {name}", f"woman {name}"} <= names.keys():
        return Figure(name, "person")
    return Figure(name)


def edits(subgroups: Mapping[str, str]) -> list[Row]:
    """Every edit between concepts, by their names, each once.

    Args:
        subgroups: of each concept, by its name.

    Raises:
        ValueError: of one picture one text asks for two.
    """
    of = {name: figure(name, subgroups) for name in subgroups}
    found = dict.fromkeys(
        row
        for rows in (_of_people(of, subgroups), _of_families(), _of_rings(), _with(subgroups))
        for row in rows
        if row.reference != row.target and {row.reference, row.target} <= subgroups.keys()
    )
    asked: dict[tuple[str, str], Row] = {}
    for row in found:
        if asked.setdefault((row.reference, row.text), row).target != row.target:
            raise ValueError(f"{row} and {asked[row.reference, row.text]} ask for the same")
    return list(asked.values())


def _of_people(of: Mapping[str, Figure], subgroups: Mapping[str, str]) -> Iterator[Row]:
    named = {own: name for name, own in of.items() if own.gender}
    for own, name in named.items():
        for gender, text in GENDERS.items():
            yield Row("gender", name, named.get(own._replace(gender=gender), ""), text)
        for hair, text in HAIR.items():
            yield Row("hair", name, named.get(own._replace(hair=hair), ""), text)
    for (own, name), (other, target) in itertools.permutations(named.items(), 2):
        group = subgroups[name]
        if own.gender != other.gender or group != subgroups[target]:
            continue
        if group in ROLES:
            article = "an" if other.base[0] in "aeiou" else "a"
            yield Row("role", name, target, f"as {article} {other.base} instead")
        elif group in ACTIVITIES:
            yield Row("role", name, target, f"{other.base} instead")


def _of_families() -> Iterator[Row]:
    for kind, families in FAMILIES.items():
        for family in families:
            for name, target in itertools.permutations(family, 2):
                yield Row(kind, name, target, family[target])
    for kind, rows in ONE_WAY.items():
        yield from (Row(kind, *row) for row in rows)


def _of_rings() -> Iterator[Row]:
    for kind, ring in RINGS.items():
        for place, name in enumerate(ring.names):
            for step, text in ring.steps.items():
                there = place + step
                if ring.closed or 0 <= there < len(ring.names):
                    yield Row(kind, name, ring.names[there % len(ring.names)], text)


def _with(names: Mapping[str, str]) -> Iterator[Row]:
    """From a thing to the same thing with, behind, on or in something."""
    for name in names:
        for word in (" with ", " behind ", " on ", " in "):
            thing, found, rest = name.partition(word)
            if found and thing in names:
                text = f"{word.strip()} {rest}"
                yield Row("with", thing, name, text)
