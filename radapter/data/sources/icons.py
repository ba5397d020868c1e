"""The built-in icons as a source: kinds, splits by designer, classes, shots."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from radapter.data import icons
from radapter.data.dataset import Dataset
from radapter.data.settings import Data, Templates
from radapter.data.stores import Stamp, member_stamp

Kind = Literal["line", "solid", "two-tone", "colour", "pixel"]
FIRST_GROUP = 100_000
"""Groups are numbers of classes from here on: those of the built-in emoji are other things."""


class IconsData(Data):
    """The built-in set of icons: each class drawn by many designers. Splits are by designer."""

    source: Literal["icons"]
    named_by = ("kinds", "classes")
    kinds: Annotated[list[Kind], Field(min_length=1)] = Field(default=["line"])
    """The ways of drawing whose pictures are taken."""
    split: Literal["train", "validation", "test"] = "train"
    """Whose drawings are taken: no designer is in two splits."""
    classes: Literal["all", "base", "novel", "unseen"] = "all"
    """`base` and `novel` are two halves of `all`. `unseen` are 42 others, of which the built-in
    model has seen neither pictures nor names. They are numbered from 0."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """This many pictures a class, or as many as there are; the smaller draws are parts of the
    larger. None: all."""
    shots_seed: Annotated[int, Field(ge=0)] = 1
    """Which draw; studies use 1, 2 and 3. A recipe that does not say it takes its `seed`."""
    captions: list[Literal["name", "others", "icon"]] = Field(default=["name"])
    """The captions of a picture: the `name` of its class; `others`, further names of the class in
    one line; what the designer calls the `icon`. The first two are right for every picture of the
    class."""
    drawing: Literal["plain", "fixed", "anew"] = "fixed"
    """`plain`: black on white, as large as the icon is. `fixed`: the colours of icon and ground,
    size and place are a function of `drawing_seed` and the picture; icons of several colours keep
    theirs. `anew`: so for validation and testing, while training pictures are drawn anew in each
    epoch."""
    drawing_seed: Annotated[int, Field(ge=0)] = 0
    """Another seed gives other colours, sizes and places."""
    templates: Templates = Field(default=["{}"])
    """Prompts for class names, `{}` standing for the name; `openai` is open_clip's list of 80."""

    licence = {  # noqa: RUF012
        "name": "radapter's built-in icons",
        "licence": "MIT, Apache-2.0, BSD-3-Clause and the Unlicense, by part: see "
        "radapter/data/icons/NOTICE.md in radapter",
    }
    notices = icons.HERE
    resampled_by = "classes"
    seeded = "shots_seed"

    def in_words(self) -> str:
        parts = ["icons", "+".join(self.kinds)]
        parts += [self.classes] if self.classes != "all" else []
        parts += [f"{self.shots} shots"] if self.shots else []
        return ", ".join(parts)

    def fewest(self) -> Data:
        """A picture of each class."""
        return self.model_copy(update={"shots": 1})

    def for_model_trained_on(self, trained: Data) -> Data | None:
        """The half of the classes that was trained on. Novel classes are novel for a model that
        was trained on the others alone."""
        if not isinstance(trained, IconsData):
            return self
        if self.classes == "novel" and trained.classes == "all":
            return None
        if self.classes == "all":
            return self.model_copy(update={"classes": trained.classes})
        return self

    def overlaps(self, other: Data) -> bool:
        """All classes but the unseen ones are those of both halves."""
        if not isinstance(other, IconsData) or not {*self.kinds} & {*other.kinds}:
            return False
        classes = {self.classes, other.classes}
        return len(classes) == 1 or ("all" in classes and "unseen" not in classes)

    def open(self) -> Dataset:
        """Pictures of the chosen kinds, split and classes; the group is the class."""
        halves = ("base", "novel") if self.classes == "all" else (self.classes,)
        labels = [n for n, facts in enumerate(icons.classes()) if facts["half"] in halves]
        number = {label: place for place, label in enumerate(labels)}
        kinds: list[str] = [*self.kinds]
        chosen = [
            icon
            for icon in icons.pictures()
            if icon.split == self.split and icon.kind in self.kinds and icon.label in number
        ]
        if self.shots:
            chosen = few(chosen, self.shots, self.shots_seed)
        drawn = Drawn(
            [(icon.number, icon.name) for icon in chosen],
            self.drawing if self.split == "train" or self.drawing == "plain" else "fixed",
            self.drawing_seed,
        )
        return Dataset(
            source=f"{self.in_words()}, {self.split}",
            keys=[f"{icon.kind}/{icon.name.replace(':', '/')}" for icon in chosen],
            read=drawn.read,
            labels=[number[icon.label] for icon in chosen],
            class_names=[icons.classes()[label]["name"] for label in labels],
            captions=[self._texts(icon) for icon in chosen],
            groups=[FIRST_GROUP + icon.label for icon in chosen],
            domains=[kinds.index(icon.kind) for icon in chosen],
            domain_names=kinds,
            makers=[icons.designer(icon) for icon in chosen],
            protocol={"drawing": f"{drawn.how}, seed {self.drawing_seed}"},
            stamp=drawn.stamp,
            varies=drawn.how == "anew",
            trivial=self._trivial(drawn.how),
        )

    def _trivial(self, how: str) -> dict[str, float]:
        """What raw pixels have right, where that was measured: of whole test sets as suites draw
        them."""
        usual = how == "fixed" and self.drawing_seed == 0 and self.shots is None
        found = icons.raw_pixels().get(icons.measured(self.kinds, self.classes))
        if found is None or not usual or self.split != "test":
            return {}
        return {"nearest training icon by raw pixels": found}

    def _texts(self, icon: icons.Icon) -> list[str]:
        facts = icons.classes()[icon.label]
        texts = {
            "name": facts["name"],
            "others": ", ".join(facts["names"]),
            "icon": icon.words,
        }
        return list(dict.fromkeys(texts[kind] for kind in self.captions if texts[kind]))

    @classmethod
    def built_in(cls) -> str:
        seen = sum(facts["half"] != "unseen" for facts in icons.classes())
        return f"{len(icons.pictures()):,} pictures of {seen} classes by many designers, built in"

    def reading_facts(self) -> dict[str, str]:
        """None: its pictures have no orientation, and are not transparent."""
        return {}


def few(pictures: list[icons.Icon], shots: int, seed: int) -> list[icons.Icon]:
    """The first pictures of each class in the order of a seed, as they stood."""
    by_class = defaultdict(list)
    for icon in pictures:
        by_class[icon.label].append(icon)
    kept = set()
    for of_class in by_class.values():
        of_class.sort(key=lambda icon: icons.place_in_draw(icon, seed))
        kept |= {icon.number for icon in of_class[:shots]}
    return [icon for icon in pictures if icon.number in kept]


@dataclass(frozen=True)
class Drawn:
    """Pictures by number and name, in the colours that a seed gives them."""

    names: list[tuple[int, str]]
    how: str
    seed: int

    def read(self, index: int) -> Image.Image:
        """With `anew` the colours follow torch's generator, which training pairs seed for each
        epoch and picture."""
        number, name = self.names[index]
        if self.how == "plain":
            return icons.drawn(number)
        seed: str | int = f"{self.seed}/{name}"
        if self.how == "anew":
            import torch  # here, as recipes are checked without it

            seed = int(torch.randint(2**62, ()))
        return icons.drawn(number, random.Random(seed))

    def stamp(self, index: int) -> Stamp:
        return member_stamp(icons.member(self.names[index][0]))
