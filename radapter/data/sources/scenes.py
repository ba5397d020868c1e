"""Scenes of built-in icons or emoji with exact masks, made from a seed."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from PIL import Image
from pydantic import Field

from radapter.data import emoji, icons
from radapter.data.dataset import BACKGROUND, Dataset
from radapter.data.drawing import Drawing, Scene, Style, scene
from radapter.data.settings import Data
from radapter.data.sources.icons import Kind
from radapter.data.stores import Stamp
from radapter.errors import UsageError, nearest

if TYPE_CHECKING:
    import numpy as np

OPAQUE = 128
"""Of 255: from here on a pixel is the drawing's, below the ground's"""
OBJECTS = 4
"""Drawings in a scene, at most; each has a quarter of the picture"""
NO_THINGS = ("symbols", "smileys & emotion", "people & body")
"""Groups of emoji that are in no scene"""
Drawn = int | tuple[str, str]
"""An icon's number, or an emoji's style and hexcode"""


class ScenesData(Data):
    """Scenes of two to four built-in icons or emoji, with the class of every pixel; made from a
    seed."""

    source: Literal["scenes"]
    named_by = ("of", "kinds", "styles", "classes", "ground")
    of: Literal["icons", "emoji"] = "icons"
    """What is in them: `icons` of a split's designers, or `emoji` of a split's concepts, those of
    things, places, animals and food."""
    split: Literal["train", "test"] = "test"
    """Whose drawings are in them. Those of `train` are for `source: regions`, to train on; no
    designer, and no concept, is in both."""
    styles: Annotated[list[str], Field(min_length=1)] = Field(default=["noto"])
    """Of emoji: the styles that are taken."""
    kinds: Annotated[list[Kind], Field(min_length=1)] = Field(default=["solid", "colour"])
    """Of icons: the ways of drawing that are taken. Lines are thin: few pixels are theirs."""
    classes: Literal["all", "base", "novel", "unseen"] = "base"
    """Of icons: the classes that are taken."""
    words: Annotated[int, Field(ge=2)] | None = 40
    """So many of these classes, drawn by a hash of their names. `null`: all."""
    ground: Literal["white", "plain", "clouded"] = "plain"
    """What the icons stand on: `white`, with black ink; a `plain` colour; or a `clouded` one. On
    the last two icons of one colour have a colour by chance too."""
    pictures: Annotated[int, Field(ge=1)] = 100
    """How many scenes."""
    size: Annotated[int, Field(ge=32)] = 128
    """Side of a scene in pixels; an icon has at most half of it."""
    scenes_seed: Annotated[int, Field(ge=0)] = 0
    """Another seed gives other scenes."""
    task: Literal["segmentation"] = "segmentation"

    licence = {  # noqa: RUF012
        "name": "radapter's built-in icons and emoji",
        "licence": "by part: see radapter/data/icons/NOTICE.md and radapter/data/emoji/NOTICE.md "
        "in radapter",
    }
    no_training = (
        "Scenes are for scoring: train on `source: icons`, `source: emoji`, or on `source: "
        "regions` with scenes of the split train"
    )

    @property
    def may_be_passed_on(self) -> bool:
        """As what is in them may be."""
        return True

    def credited(self, key: str) -> tuple[Path, set[str]]:
        """The sets of a scene's drawings."""
        _, scenes = self.parts()
        drawings = scenes.drawings(int(key.split("/")[-1]))
        if self.of == "emoji":
            return emoji.HERE, {style for style, _ in drawings}  # type: ignore[misc]
        names = [icons.pictures()[number].name for number in drawings]  # type: ignore[index]
        return icons.HERE, {name.split(":")[0] for name in names}

    @classmethod
    def built_in(cls) -> str:
        return "scenes of built-in icons or emoji with exact masks, made from a seed"

    def in_words(self) -> str:
        what = self.kinds if self.of == "icons" else self.styles
        return f"scenes of {self.of}, {self.ground} ground, {'+'.join(what)}"

    def held_out(self) -> None:
        """None: scenes are not trained on."""

    def parts(self) -> tuple[list[str], Scenes]:
        """The names of the classes, numbered as in their own set and called as there, and the
        scenes."""
        found = self._icons() if self.of == "icons" else self._emoji()
        chosen = set(sorted(found, key=_hash)[: self.words])
        by_class = {name: drawings for name, drawings in found.items() if name in chosen}
        return list(by_class), Scenes(list(by_class.values()), self)

    def style(self) -> str:
        """What results say of them."""
        return f"{self.ground} ground, {self.size} pixels, seed {self.scenes_seed}"

    def open(self) -> Dataset:
        """See `parts`."""
        names, drawn = self.parts()
        return Dataset(
            source=self.in_words(),
            keys=[
                f"{self.of}/{self.ground}/{self.scenes_seed}/{i:04}" for i in range(self.pictures)
            ],
            read=drawn.read,
            class_names=names,
            groups=list(range(self.pictures)),
            protocol={"scenes": self.style()},
            stamp=drawn.stamp,
            mask=drawn.mask,
            regions=drawn.regions,
        )

    def _icons(self) -> dict[str, list[Drawn]]:
        """The icons of each class, by its name."""
        halves = ("base", "novel") if self.classes == "all" else (self.classes,)
        by_class: dict[int, list[Drawn]] = defaultdict(list)
        for icon in icons.pictures():
            fits = icons.classes()[icon.label]["half"] in halves
            if fits and icon.split == self.split and icon.kind in self.kinds:
                by_class[icon.label].append(icon.number)
        return {icons.classes()[label]["name"]: by_class[label] for label in sorted(by_class)}

    def _emoji(self) -> dict[str, list[Drawn]]:
        """The emoji of each concept of the split, by its name."""
        for style in self.styles:
            if style not in emoji.styles():
                raise UsageError(f"Unknown emoji style '{style}'.{nearest(style, emoji.styles())}")
        return {
            concept["name"]: [(style, concept["hexcode"]) for style in self.styles]
            for concept in emoji.concepts()
            if emoji.in_split(concept, self.split, 0) and concept["group"] not in NO_THINGS
        }

    def reading_facts(self) -> dict[str, str]:
        """None: its pictures have no orientation, and are not transparent."""
        return {}


def _drawing(of: Drawn) -> Drawing:
    """An icon by its number, or an emoji by its style and hexcode."""
    import numpy as np  # here, as recipes are checked without it

    if isinstance(of, int):
        return icons.drawing(of)
    return Drawing(np.uint8(255) * emoji.mask(*of), np.asarray(emoji.picture(*of)))


def _hash(text: str) -> str:
    return hashlib.sha256(f"radapter-scenes-1/{text}".encode()).hexdigest()


@dataclass(frozen=True)
class Scenes:
    """Scenes by number, each made when it is asked for."""

    of_class: list[list[Drawn]]
    """The drawings of each class"""
    settings: ScenesData

    def _begun(self, index: int) -> tuple[random.Random, list[int]]:
        of = self.settings
        chance = random.Random(f"{of.scenes_seed}/{of.of}/{of.ground}/{index}")
        number = 2 + int((OBJECTS - 1) * chance.random())
        return chance, [int(len(self.of_class) * chance.random()) for _ in range(number)]

    def labels(self, index: int) -> list[int]:
        """The class of each of a scene's drawings."""
        return self._begun(index)[1]

    def drawings(self, index: int) -> list[Drawn]:
        """What is in a scene."""
        chance, labels = self._begun(index)
        return [self.of_class[n][int(len(self.of_class[n]) * chance.random())] for n in labels]

    def made(self, index: int) -> tuple[Scene, list[int]]:
        """A scene with its masks, and the class of each of its drawings."""
        of = self.settings
        chance, labels = self._begun(index)
        chosen = [self.of_class[n][int(len(self.of_class[n]) * chance.random())] for n in labels]
        coloured = float(of.ground != "white")
        style = Style(of.size, coloured, float(of.ground == "clouded"), smallest=0.4)
        drawings = [_drawing(n) for n in chosen]
        return scene(drawings, chance, style, masks=True), labels

    def read(self, index: int) -> Image.Image:
        return self.made(index)[0].picture

    def mask(self, index: int) -> np.ndarray:
        """The class of each pixel, see `Dataset.mask`."""
        import numpy as np  # here, as recipes are checked without it

        found, labels = self.made(index)
        mask = np.full(found.coverages[0].shape, BACKGROUND)
        for coverage, label in zip(found.coverages, labels, strict=True):
            mask[coverage >= OPAQUE] = label + 1
        return mask

    def cut(self, index: int) -> tuple[Image.Image, list[np.ndarray]]:
        """A scene's picture, and the exact mask of each drawing."""
        found = self.made(index)[0]
        return found.picture, [coverage >= OPAQUE for coverage in found.coverages]

    def regions(self, index: int) -> list[np.ndarray]:
        """The exact mask of each drawing."""
        return self.cut(index)[1]

    def stamp(self, index: int) -> Stamp:
        """Of a scene nothing but its seed and number can change, and they are in its name."""
        return len(self.of_class), sum(map(len, self.of_class)), self.settings.size
