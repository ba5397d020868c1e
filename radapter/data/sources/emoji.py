"""The built-in set as a source: styles, folds, splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from radapter.data import emoji
from radapter.data.dataset import Dataset
from radapter.data.settings import Data
from radapter.data.stores import Stamp, member_stamp
from radapter.errors import UsageError, nearest


class EmojiData(Data):
    """The built-in set of emoji: each concept in eight styles. Splits are by concept."""

    source: Literal["emoji"]
    named_by = ("styles", "classes", "draw")
    styles: Annotated[list[str], Field(min_length=1)] = Field(default=["noto"])
    """The styles whose pictures are taken."""
    split: Literal["train", "validation", "test", "all"] = "train"
    """Which concepts are taken."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth of the concepts is kept for testing. The next fifth is for validation, the other
    three are for training."""
    classes: Literal["all", "seen", "unseen"] = "all"
    """Which classes are taken, for pictures that look for pictures. A class is a Unicode subgroup:
    `all` are the 77 with at least five concepts. A draw parts the 55 with at least eight into 37
    `seen` ones, to train on, and 18 `unseen` ones; they are numbered from 0 in either part."""
    draw: Annotated[int, Field(ge=1, le=emoji.DRAWS)] = 1
    """Which of five fixed draws of `seen` and `unseen` classes. A suite takes that of the run."""
    captions: list[Literal["name", "keywords", "kind", "class"]] = Field(
        default=["name", "keywords"]
    )
    """The captions of a picture: its `name`; its `keywords` in one line; its `kind`, which is
    "SUBGROUP: NAME"; its `class`, which is "a picture of SUBGROUP."."""

    licence = {  # noqa: RUF012
        "name": "radapter's built-in emoji set",
        "licence": "Apache-2.0, MIT, CC-BY-4.0 and Unicode-3.0, by part, and with credit: see "
        "radapter/data/emoji/NOTICE.md in radapter",
    }
    notices = emoji.HERE
    resampled_by = "concepts"

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `classes` and `draw` where all classes are taken, so that studies know their
        results on suites from before there were draws."""
        tree: dict[str, Any] = handler(self)
        if self.classes == "all":
            for key in ("classes", "draw"):
                tree.pop(key, None)
        return tree

    def in_words(self) -> str:
        drawn = "" if self.classes == "all" else f", {self._drawn()}"
        return f"emoji {'+'.join(self.styles)}, fold {self.fold}{drawn}"

    def _drawn(self) -> str:
        return f"{self.classes} classes of draw {self.draw}"

    def for_model_trained_on(self, trained: Data) -> Data | None:
        """The fold that was kept for testing, of all concepts those of that fold, and the draw.
        Unseen classes, whole, are unseen by a model that was trained on the seen ones alone."""
        if not isinstance(trained, EmojiData):
            return self
        if self.classes == "unseen" and trained.classes != "seen":
            return None
        update: dict[str, Any] = {"fold": trained.fold}
        if (self.split, self.classes) == ("all", "all"):
            update["split"] = "test"
        if trained.classes != "all":
            update["draw"] = trained.draw
            update["classes"] = trained.classes if self.classes == "all" else self.classes
        return self.model_copy(update=update)

    def overlaps(self, other: Data) -> bool:
        """Seen and unseen classes of one draw have nothing in common; all others may have."""
        if not isinstance(other, EmojiData) or not {*self.styles} & {*other.styles}:
            return False
        return self.draw != other.draw or {self.classes, other.classes} != {"seen", "unseen"}

    def open(self) -> Dataset:
        """Pictures of the chosen styles and split; the group is the concept, in whatever style."""
        for style in self.styles:
            if style not in emoji.styles():
                raise UsageError(f"Unknown emoji style '{style}'.{nearest(style, emoji.styles())}")
        drawn_classes = self.classes != "all"
        names = emoji.class_names()
        if drawn_classes:
            names = emoji.drawn_classes(self.draw, self.classes)
        classify = self.task == "classification"
        chosen = [
            (style, number, concept)
            for style in self.styles
            for number, concept in enumerate(emoji.concepts())
            if emoji.in_split(concept, self.split, self.fold)
            and not ((classify or drawn_classes) and concept["subgroup"] not in names)
        ]
        drawn = Drawn([(style, concept["hexcode"]) for style, _, concept in chosen])
        return Dataset(
            source=f"emoji {'+'.join(self.styles)}, {self.split} of fold {self.fold}"
            + (f", {self._drawn()}" if drawn_classes else ""),
            keys=[f"{style}/{concept['hexcode']}" for style, _, concept in chosen],
            read=drawn.read,
            labels=[names.index(c["subgroup"]) for _, _, c in chosen] if classify else [],
            class_names=names if classify else [],
            captions=[emoji.captions(concept, list(self.captions)) for _, _, concept in chosen],
            groups=[number for _, number, _ in chosen],
            domains=[self.styles.index(style) for style, _, _ in chosen],
            domain_names=self.styles,
            protocol={"classes": self._drawn()} if drawn_classes else {},
            stamp=drawn.stamp,
        )

    @classmethod
    def built_in(cls) -> str:
        return f"{len(emoji.concepts())} concepts in {len(emoji.styles())} styles, built in"

    def reading_facts(self) -> dict[str, str]:
        """None: its pictures have no orientation, and are not transparent."""
        return {}


@dataclass(frozen=True)
class Drawn:
    """Pictures by style and hexcode."""

    names: list[tuple[str, str]]

    def read(self, index: int) -> Image.Image:
        return emoji.picture(*self.names[index])

    def stamp(self, index: int) -> Stamp:
        return member_stamp(emoji.member(*self.names[index]))
