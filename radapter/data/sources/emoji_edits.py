"""Built-in edits of emoji: a picture, what is to be changed of it, and the same style's picture of
that.

An edit is in the split of its target's concept; edits to train on have a reference of those splits
too. So nothing that is looked for, or that a weight is chosen on, is trained on in any part.
"""

from __future__ import annotations

from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from radapter.data import emoji
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.emoji import edits as table
from radapter.data.settings import Data
from radapter.data.sources.emoji import EmojiData
from radapter.data.stores import Stamp, member_stamp
from radapter.errors import UsageError, nearest

MEASURED = ("r1", "r5", "r10", "kinds_r1", "subset_r1")


class EmojiEditsData(Data):
    """Built-in edits of emoji, such as "make it blue" or "half an hour later", in eight styles."""

    source: Literal["emoji-edits"]
    named_by = ("styles",)
    styles: Annotated[list[str], Field(min_length=1)] = Field(default=["noto"])
    """The styles whose pictures are taken. An edit stays within its style, and so does what is
    ranked: a text cannot name a style."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Which edits are taken."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth of the concepts is kept for testing. The next fifth is for validation, the other
    three are for training."""
    kinds: list[str] | None = None
    """Which kinds of edits are taken, such as `colour` or `clock`. `null`: all."""
    task: Literal["edits"] = "edits"
    licence = EmojiData.licence
    notices = EmojiData.notices
    resampled_by = EmojiData.resampled_by

    def in_words(self) -> str:
        return f"edits of emoji {'+'.join(self.styles)}, fold {self.fold}"

    def for_model_trained_on(self, trained: Data) -> Data:
        """The fold that was kept for testing."""
        fold = getattr(trained, "fold", self.fold) if "emoji" in trained.source else self.fold
        return self.model_copy(update={"fold": fold})

    def reading_facts(self) -> dict[str, str]:
        """None: its pictures have no orientation, and are not transparent."""
        return {}

    @classmethod
    def built_in(cls) -> str:
        return f"{len(table.rows()):,} edits of {len(table.kinds())} kinds, built in"

    def open(self) -> Dataset:
        """Every picture of the styles, and the edits of the split; a group is a concept.

        In a style an edit is left out if its reference or target looks the same as another
        picture there. The subset is what the reference's edits lead to; if that is the target
        alone, the target's Unicode subgroup.

        Raises:
            UsageError: there is no such style or kind, or no such edit.
        """
        self._check()
        concepts = table.concepts()
        chosen = [(s, n) for s in self.styles for n in range(table.number_of(s))]
        places = {pair: i for i, pair in enumerate(chosen)}
        edits = [edit for style in self.styles for edit in self._edits(style, places)]
        if not edits:
            raise UsageError(f"{self.in_words()} has no edit of these kinds in {self.split}.")
        drawn = Drawn([(style, concepts[number]["hexcode"]) for style, number in chosen])
        return Dataset(
            source=f"edits of emoji {'+'.join(self.styles)}, {self.split} of fold {self.fold}",
            keys=[f"{style}/{hexcode}" for style, hexcode in drawn.names],
            read=drawn.read,
            captions=[[concepts[number]["name"]] for _, number in chosen],
            groups=[number for _, number in chosen],
            edits=edits,
            measured=list(MEASURED),
            protocol={"gallery": "all pictures of the style, without the reference; subset: what "
                      "the reference's edits lead to, or the target's subgroup"},
            stamp=drawn.stamp,
        )  # fmt: skip

    def _check(self) -> None:
        for style in self.styles:
            if style not in emoji.styles():
                raise UsageError(f"Unknown emoji style '{style}'.{nearest(style, emoji.styles())}")
        for kind in self.kinds or ():
            if kind not in table.kinds():
                raise UsageError(f"Unknown kind of edits '{kind}'.{nearest(kind, table.kinds())}")

    def _edits(self, style: str, places: dict[tuple[str, int], int]) -> list[Edit]:
        concepts, size = table.concepts(), table.number_of(style)
        gallery = [places[style, number] for number in range(size)]
        rows = [row for row in table.rows() if max(row.reference, row.target) < size]
        leads_to: dict[int, set[int]] = {}
        for row in rows:
            leads_to.setdefault(row.reference, set()).add(row.target)
        of_subgroup: dict[str, set[int]] = {}
        for number in range(size):
            of_subgroup.setdefault(concepts[number]["subgroup"], set()).add(number)
        found = []
        for row in rows:
            taken = self.kinds is None or row.kind in self.kinds
            if not taken or not self._in_split(row) or {*row[1:3]} & table.alike(style):
                continue
            variants = leads_to[row.reference]
            if len(variants) == 1:
                variants = of_subgroup[concepts[row.target]["subgroup"]]
            codes = [concepts[number]["hexcode"] for number in row[1:3]]
            found.append(
                Edit(
                    name=f"{style}/{codes[0]}/{row.text}",
                    reference=places[style, row.reference],
                    texts=(row.text,),
                    targets=(places[style, row.target],),
                    gallery=gallery,
                    subset=tuple(places[style, n] for n in sorted(variants - {row.reference})),
                    kind=row.kind,
                    told=concepts[row.target]["name"],
                )
            )
        return found

    def _in_split(self, row: table.Row) -> bool:
        target, reference = (
            emoji.in_split(table.concepts()[number], self.split, self.fold)
            for number in (row.target, row.reference)
        )
        return target and (reference or self.split != "train")


class Drawn:
    """Pictures by style and hexcode.

    Args:
        names: of each picture.
    """

    def __init__(self, names: list[tuple[str, str]]) -> None:
        self.names = names

    def read(self, index: int) -> Image.Image:
        return table.member(*self.names[index]).picture()

    def stamp(self, index: int) -> Stamp:
        return member_stamp(table.member(*self.names[index]))
