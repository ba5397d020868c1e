"""Drawings with their transparency, which are put into pictures anew in every epoch."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from radapter.data.dataset import Dataset, Example
from radapter.data.drawing import Drawing, Style, scene
from radapter.data.settings import Augmentation, Data, MissingData, located
from radapter.data.stores import Stamp, file_stamp
from radapter.errors import BrokenInput, UsageError, nearest
from radapter.registry import Unit

LIST, COVERAGES, COLOURS = "drawings.json", "coverage.npy", "colours.npy"
KEYWORDS = 3
"""Most keywords in one caption"""
EASY = 0.8
"""Smallest size of an easier drawing, as a share of the picture's side"""


class DrawingsData(Data):
    """A folder of drawings by several designers, as `benchmarks/icon_pretraining.py` writes it.

    In training, an epoch has every drawing as often as the list says: each time one of its
    variants, with one of its texts."""

    source: Literal["drawings"]
    named_by = ("path",)
    path: Annotated[str, Field(examples=["drawings"])]
    """The folder."""
    task: Literal["captions"] = "captions"
    """What a picture is paired with: its captions."""
    augmentation: Augmentation | None = Augmentation(crop=(1.0, 1.0))
    """Random changes to training pictures, after the drawings are in them. By default none."""
    held_out_families: list[str] = Field(default=[])
    """Designers whose drawings are never trained on: they are the held-out data."""
    split: Literal["train", "validation", "all"] = "train"
    """Which drawings are taken: those to train on, those that are held out, or all."""
    coloured: Unit = 0.85
    """Probability that the ground has a colour, and a one-colour drawing another one. Else the
    ground is white and the ink black. Drawings in colours keep theirs."""
    clouds: Unit = 0.25
    """The share of coloured grounds that are clouded, not plain."""
    smallest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    """The smallest size of a drawing, as a share of the picture's side. The largest is 1; the place
    is random."""
    turn: Annotated[float, Field(ge=0.0, le=180.0)] = 15.0
    """The largest turn of a drawing, in degrees."""
    several: Unit = 0.25
    """Probability that a training picture has two or three drawings, with the names of all as its
    caption."""
    easier_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which some drawings are easier: in black on white (or in their own
    colours), large, upright and alone. Their share falls evenly, and is 0 after so many epochs.
    From random weights, training may not begin to learn without it."""
    name_share: Unit = 0.6
    """Probability that a caption is the drawing's name. Else it is a keyword, up to three keywords,
    or a phrase such as "line icon of a cat"."""

    resampled_by = "drawings"

    def in_words(self) -> str:
        return f"drawings {Path(self.path).name}, {self.split}"

    def held_out(self) -> Data | None:
        return super().held_out() if self.held_out_families else None

    def scored(self) -> Data | None:
        return self.model_copy(update={"split": "all"})

    def open(self) -> Dataset:
        """The group is the name: drawings of one name are positives of each other's texts."""
        folder = located(self, self.path)
        if not (folder / LIST).is_file():
            raise MissingData(f"{folder} has no {LIST}. Correct data.path, or give --data-root.")
        try:
            entries = json.loads((folder / LIST).read_text(encoding="utf-8"))
        except ValueError as error:
            raise BrokenInput(f"{folder / LIST} is damaged: {error}") from None
        families = sorted({entry["family"] for entry in entries})
        for family in self.held_out_families:
            if family not in families:
                raise UsageError(f"No drawings by '{family}'.{nearest(family, families)}")
        numbers = {n: i for i, n in enumerate(dict.fromkeys(entry["name"] for entry in entries))}
        if self.split != "all":
            held = self.split == "validation"
            entries = [e for e in entries if (e["family"] in self.held_out_families) == held]
        if self.split == "train":
            entries = [time for entry in entries for time in _times(entry)]
        pictures = Drawings(folder, entries, self)
        names = [entry["name"] for entry in entries]
        trained = self.split != "validation"
        return Dataset(
            source=f"drawings {self.path}, {self.split}",
            keys=[entry["key"] for entry in entries],
            read=pictures.read,
            captions=[texts_of(entry) if trained else [entry["name"]] for entry in entries],
            groups=[numbers[name] for name in names],
            group_names=names,
            stamp=pictures.stamp,
            draw=pictures.draw if trained else None,
        )

    def reading_facts(self) -> dict[str, str]:
        """None: drawings have no orientation, and what shows through them is the ground."""
        return {}


def texts_of(entry: dict[str, Any]) -> list[str]:
    """Everything that training may say of a drawing; keywords in one line."""
    texts = [entry["name"], ", ".join(entry["keywords"]), *entry["phrases"]]
    return list(dict.fromkeys(text for text in texts if text))


def _times(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """A drawing as often as an epoch has it, each time under a key of its own."""
    more = range(2, 1 + entry.get("times", 1))
    return [entry, *({**entry, "key": f"{entry['key']}, {time}"} for time in more)]


@dataclass(frozen=True)
class Drawings:
    """Drawings of a folder by their number in `entries`; small where it is sent."""

    folder: Path
    entries: list[dict[str, Any]]
    """`key`, `name`, `family`, `keywords`, `phrases`; `times`, how often an epoch has it (once, if
    it is not there); `pictures`, the numbers of the variants in the file of coverages; and
    `colours`, theirs in that of colours, -1 for one-colour variants"""
    settings: DrawingsData

    def drawing(self, index: int, variant: int = 0) -> Drawing:
        import numpy as np  # here, as recipes are checked without it

        entry = self.entries[index]
        coverages, colours = _arrays(self.folder)
        own = entry["colours"][variant]
        return Drawing(
            np.asarray(coverages[entry["pictures"][variant]]),
            np.asarray(colours[own]) if own >= 0 else None,
        )

    def read(self, index: int) -> Image.Image:
        """The first variant, in the same picture every time."""
        digest = hashlib.blake2b(self.entries[index]["key"].encode(), digest_size=8).digest()
        chance = random.Random(int.from_bytes(digest, "little"))
        return scene([self.drawing(index)], chance, self.style()).picture

    def draw(self, index: int, epoch: int, seed: int) -> Example:
        """A variant of the drawing, maybe with others beside it, and a text."""
        chance, of = random.Random(seed), self.settings
        easier = chance.random() < 1 - (epoch + 1) / (of.easier_epochs + 1)
        shown = [index]
        if not easier and chance.random() < of.several:
            more = 1 + int(2 * chance.random())
            shown += [int(len(self.entries) * chance.random()) for _ in range(more)]
        drawings = [
            self.drawing(i, int(len(self.entries[i]["pictures"]) * chance.random())) for i in shown
        ]
        text, own = self._text(shown, chance)
        style = Style(self.side(), smallest=EASY) if easier else self.style()
        return Example(lambda: scene(drawings, chance, style).picture, text, own)

    def _text(self, shown: list[int], chance: random.Random) -> tuple[str, bool]:
        """A caption, and whether it is right for this picture alone."""
        if len(shown) > 1:
            *first, last = (self.entries[i]["name"] for i in shown)
            return f"{', '.join(first)} and {last}", True
        entry, kind = self.entries[shown[0]], chance.random()
        if kind < self.settings.name_share:
            return entry["name"], False
        kinds = [kind for kind in ("keyword", "keywords", "phrase") if entry[_FROM[kind]]]
        if not kinds:
            return entry["name"], False
        words = entry[_FROM[chosen := _one(kinds, chance)]]
        if chosen != "keywords":
            return _one(words, chance), True
        start = int(max(1, len(words) - KEYWORDS + 1) * chance.random())
        return ", ".join(words[start : start + KEYWORDS]), True

    def side(self) -> int:
        return int(_arrays(self.folder)[0].shape[1])

    def style(self) -> Style:
        of = self.settings
        return Style(self.side(), of.coloured, of.clouds, of.smallest, of.turn)

    def stamp(self, index: int) -> Stamp:
        return file_stamp(self.folder / COVERAGES)


_FROM = {"keyword": "keywords", "keywords": "keywords", "phrase": "phrases"}


def _one(of: list[str], chance: random.Random) -> str:
    return of[int(len(of) * chance.random())]


@functools.cache
def _arrays(folder: Path) -> tuple[Any, Any]:
    """The coverages and the colours, mapped into memory: only what is used is read.

    Raises:
        BrokenInput: one is missing or damaged.
    """
    import numpy as np  # here, as recipes are checked without it

    found = []
    for name in (COVERAGES, COLOURS):
        try:
            found.append(np.load(folder / name, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise BrokenInput(f"{folder / name} cannot be read: {error}") from None
    return found[0], found[1]
