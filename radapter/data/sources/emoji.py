"""The built-in set as a source: styles, folds, splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from radapter.data import emoji
from radapter.data.dataset import Dataset
from radapter.data.settings import Data
from radapter.data.stores import Stamp, member_stamp
from radapter.errors import UsageError, nearest


class EmojiData(Data):
    """The built-in set of emoji: each concept in eight styles. Splits are by concept."""

    source: Literal["emoji"]
    named_by = ("styles",)
    styles: Annotated[list[str], Field(min_length=1)] = Field(default=["noto"])
    """The styles whose pictures are taken."""
    split: Literal["train", "validation", "test", "all"] = "train"
    """Which concepts are taken."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth of the concepts is kept for testing. The next fifth is for validation, the other
    three are for training."""
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

    def in_words(self) -> str:
        return f"emoji {'+'.join(self.styles)}, fold {self.fold}"

    def for_model_trained_on(self, trained: Data) -> Data:
        """The fold that was kept for testing; of all concepts those of that fold."""
        if not isinstance(trained, EmojiData):
            return self
        split = "test" if self.split == "all" else self.split
        return self.model_copy(update={"fold": trained.fold, "split": split})

    def open(self) -> Dataset:
        """Pictures of the chosen styles and split; the group is the concept, in whatever style."""
        for style in self.styles:
            if style not in emoji.styles():
                raise UsageError(f"Unknown emoji style '{style}'.{nearest(style, emoji.styles())}")
        names = emoji.class_names()
        classify = self.task == "classification"
        chosen = [
            (style, number, concept)
            for style in self.styles
            for number, concept in enumerate(emoji.concepts())
            if emoji.in_split(concept, self.split, self.fold)
            and not (classify and concept["subgroup"] not in names)
        ]
        drawn = Drawn([(style, concept["hexcode"]) for style, _, concept in chosen])
        return Dataset(
            source=f"emoji {'+'.join(self.styles)}, {self.split} of fold {self.fold}",
            keys=[f"{style}/{concept['hexcode']}" for style, _, concept in chosen],
            read=drawn.read,
            labels=[names.index(c["subgroup"]) for _, _, c in chosen] if classify else [],
            class_names=names if classify else [],
            captions=[emoji.captions(concept, list(self.captions)) for _, _, concept in chosen],
            groups=[number for _, number, _ in chosen],
            domains=[self.styles.index(style) for style, _, _ in chosen],
            domain_names=self.styles,
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
