"""Built-in emoji that move: clips made when they are read, to tell whether a model uses time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from radapter.data import emoji
from radapter.data.clips import ClipData, View, seen
from radapter.data.dataset import Dataset
from radapter.data.moving import MOTIONS, frames, opposite
from radapter.data.settings import Data, Templates
from radapter.data.sources.emoji import EmojiData
from radapter.data.stores import Stamp, member_stamp
from radapter.errors import UsageError, nearest

FIRST_GROUP = 300_000
"""Groups are numbers of concept and motion from here on: those of other sets are other things."""


class MovingEmojiData(ClipData):
    """Built-in emoji in ten motions, in pairs of which one is the other backwards: the mean of the
    frames cannot tell these two apart."""

    source: Literal["moving-emoji"]
    named_by = ("styles", "start")
    styles: Annotated[list[str], Field(min_length=1)] = Field(default=["noto"])
    """The styles whose pictures move."""
    start: Literal["fixed", "random"] = "fixed"
    """`fixed`: a motion goes from one end to the other, so that the first frame tells its direction
    too. `random`: it starts anywhere and goes on from the other end: order alone tells it."""
    frames: Annotated[int, Field(ge=2, le=64)] = 8
    """How many frames a clip has."""
    split: Literal["train", "validation", "test", "all"] = "train"
    """Which concepts are taken."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth of the concepts is kept for testing. The next fifth is for validation, the other
    three are for training."""
    concepts: Annotated[int, Field(ge=1)] | None = None
    """How many concepts of the split are taken, drawn by a hash of their names. `null`: all."""
    templates: Templates = Field(default=["{}"])
    """Prompts for the classes, which are the motions."""

    licence = EmojiData.licence
    notices = EmojiData.notices
    resampled_by = "concepts with their motions"

    def in_words(self) -> str:
        return f"moving emoji {'+'.join(self.styles)}, {self.start} start"

    def for_model_trained_on(self, trained: Data) -> Data:
        """The fold that was kept for testing, of pictures too."""
        return self.model_copy(update={"fold": getattr(trained, "fold", self.fold)})

    def is_set_of(self, trained: Data) -> bool:
        return (
            isinstance(trained, MovingEmojiData)
            and self.view == "clip"
            and self.start == trained.start
            and set(self.styles) <= set(trained.styles)
        )

    def open(self) -> Dataset:
        """Every concept in every motion; the group is both, in whatever style."""
        for style in self.styles:
            if style not in emoji.styles():
                raise UsageError(f"Unknown emoji style '{style}'.{nearest(style, emoji.styles())}")
        concepts = self._concepts()
        chosen = [
            (style, number, concept, motion)
            for style in self.styles
            for number, concept in concepts
            for motion in range(len(MOTIONS))
        ]
        moving = Moving(
            [(style, concept["hexcode"], motion) for style, _, concept, motion in chosen],
            self.frames, self.start == "random", self.view,
        )  # fmt: skip
        choices = [_choices(concept["name"], motion) for _, _, concept, motion in chosen]
        classify = self.task == "classification"
        return Dataset(
            source=f"moving emoji {'+'.join(self.styles)}, {self.split} of fold {self.fold}",
            keys=[f"{_direction(m)}/{style}/{c['hexcode']}" for style, _, c, m in chosen],
            read=moving.read,
            read_anew=self.drawn_anew(moving.read_anew) if self.start == "random" else None,
            frames=self.frames,
            labels=[motion for *_, motion in chosen] if classify else [],
            class_names=[motion.words for motion in MOTIONS] if classify else [],
            captions=[own[:1] for own in choices],
            groups=[FIRST_GROUP + len(MOTIONS) * number + m for _, number, _, m in chosen],
            choices=choices,
            protocol={"frames": f"{self.frames}", "view": self.view, "start": self.start},
            stamp=moving.stamp,
        )

    def _concepts(self) -> list[tuple[int, dict[str, Any]]]:
        """Those of the split, with their numbers among all."""
        own = [
            (number, concept)
            for number, concept in enumerate(emoji.concepts())
            if emoji.in_split(concept, self.split, self.fold)
        ]
        if self.concepts is not None:
            own.sort(key=lambda pair: hashlib.sha256(pair[1]["hexcode"].encode()).digest())
            own = sorted(own[: self.concepts], key=lambda pair: pair[0])
        return own

    @classmethod
    def built_in(cls) -> str:
        return f"{len(emoji.concepts())} concepts in {len(MOTIONS)} motions, made when read"

    def reading_facts(self) -> dict[str, str]:
        """None: its pictures have no orientation, and are not transparent."""
        return {}


def _choices(name: str, motion: int) -> list[str]:
    """The caption, that of the opposite motion, and those of all others."""
    first = [motion, opposite(motion)]
    order = first + [other for other in range(len(MOTIONS)) if other not in first]
    return [f"{name} {MOTIONS[other].words}" for other in order]


def _direction(motion: int) -> str:
    return MOTIONS[motion].words.replace(" ", "-")


@dataclass(frozen=True)
class Moving:
    """Clips by style, hexcode and number of the motion."""

    names: list[tuple[str, str, int]]
    frames: int
    random_start: bool
    view: View

    def read(self, index: int) -> list[Image.Image]:
        style, hexcode, motion = self.names[index]
        digest = hashlib.sha256(f"{style}/{hexcode}/{motion}".encode()).digest()
        return self._clip(index, int.from_bytes(digest[:4], "little"))

    def read_anew(self, index: int) -> list[Image.Image]:
        """From another start each time."""
        import torch  # here, as recipes are checked without it

        return self._clip(index, int(torch.randint(self.frames, ())))

    def _clip(self, index: int, phase: int) -> list[Image.Image]:
        style, hexcode, motion = self.names[index]
        phase = phase % self.frames if self.random_start else 0
        made = frames(emoji.picture(style, hexcode), MOTIONS[motion], self.frames, phase)
        return seen(made, self.view, f"{style}/{hexcode}/{motion}")

    def stamp(self, index: int) -> Stamp:
        return member_stamp(emoji.member(*self.names[index][:2]))
