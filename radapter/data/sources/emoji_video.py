"""The built-in animated emoji as a source: captions or classes, splits by what is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from radapter.data import emoji, emoji_video
from radapter.data.clips import ClipData, View, places, seen, shares
from radapter.data.dataset import Dataset
from radapter.data.settings import Data
from radapter.data.stores import Stamp, member_stamp

FIRST_GROUP = 200_000
"""Groups are numbers of clips from here on: those of other built-in sets are other things."""


class EmojiVideoData(ClipData):
    """The built-in animated emoji, eight frames each. The first frame says as much as all of them:
    no score on them says that a model uses time."""

    source: Literal["emoji-video"]
    named_by = ("source",)
    frames: Annotated[int, Field(ge=1, le=emoji_video.FRAMES)] = emoji_video.FRAMES
    """How many of the eight frames are taken, one of each of so many equal parts."""
    split: Literal["train", "validation", "test", "all"] = "train"
    """Which clips are taken. What man, woman and person do alike is in one split."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth is kept for testing, as in the built-in emoji. The next fifth is for validation,
    the other three are for training."""
    captions: list[Literal["name", "keywords"]] = Field(default=["name", "keywords"])
    """The captions of a clip: its `name`; its `keywords` in one line."""

    licence = {  # noqa: RUF012
        "name": "radapter's built-in animated emoji",
        "licence": "MIT, with credit: see radapter/data/emoji_video/NOTICE.md in radapter",
    }
    notices = emoji_video.HERE
    resampled_by = "clips"

    def in_words(self) -> str:
        return f"animated emoji, fold {self.fold}"

    def for_model_trained_on(self, trained: Data) -> Data:
        """The fold that was kept for testing, of pictures too."""
        return self.model_copy(update={"fold": getattr(trained, "fold", self.fold)})

    def is_set_of(self, trained: Data) -> bool:
        return trained.source == self.source and self.view == "clip"

    def open(self) -> Dataset:
        """Clips of the split; classes are the subgroups of emoji with five clips or more."""
        sizes = Counter(clip["subgroup"] for clip in emoji_video.clips())
        names = sorted(name for name, size in sizes.items() if size >= emoji.SMALLEST_CLASS)
        classify = self.task == "classification"
        chosen = [
            (number, clip)
            for number, clip in enumerate(emoji_video.clips())
            if emoji.in_split(clip, self.split, self.fold)
            and not (classify and clip["subgroup"] not in names)
        ]
        strips = Strips([clip["hexcode"] for _, clip in chosen], self.frames, self.view)
        return Dataset(
            source=f"animated emoji, {self.split} of fold {self.fold}",
            keys=[f"fluent-emoji-anim/{clip['hexcode']}" for _, clip in chosen],
            read=strips.read,
            read_anew=self.drawn_anew(strips.read_anew),
            frames=self.frames,
            labels=[names.index(clip["subgroup"]) for _, clip in chosen] if classify else [],
            class_names=names if classify else [],
            captions=[emoji.captions(clip, list(self.captions)) for _, clip in chosen],
            groups=[FIRST_GROUP + number for number, _ in chosen],
            protocol=self.clip_facts(),
            stamp=strips.stamp,
        )

    @classmethod
    def built_in(cls) -> str:
        return f"{len(emoji_video.clips())} animated emoji, built in"

    def reading_facts(self) -> dict[str, str]:
        """None: its pictures have no orientation, and are not transparent."""
        return {}


@dataclass(frozen=True)
class Strips:
    """Clips by hexcode."""

    names: list[str]
    frames: int
    view: View

    def read(self, index: int, chance: bool = False) -> list[Image.Image]:
        frames = emoji_video.frames(self.names[index])
        chosen = places(len(frames), shares(self.frames, chance))
        taken = [frames[place] for place in chosen]
        return seen(taken, self.view, self.names[index])

    def read_anew(self, index: int) -> list[Image.Image]:
        return self.read(index, chance=True)

    def stamp(self, index: int) -> Stamp:
        return member_stamp(emoji_video.member(self.names[index]))
