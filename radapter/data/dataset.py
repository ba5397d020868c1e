"""One form for every source: named pictures, read when asked for, with labels and captions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from radapter.data.edits import Edit, placed, stated
from radapter.data.left_out import LeftOut, merged, summary_of
from radapter.data.pixels import without_prefix
from radapter.data.stores import Stamp
from radapter.errors import BrokenInput
from radapter.names import to_bytes

T = TypeVar("T")
EACH = {"each": True}
"""Marks a field with one entry a picture"""
QUERY, GALLERY = 1, 2
"""What a picture is in picture retrieval; 3 is both"""
IGNORED, BACKGROUND = -1, 0
"""In masks"""


@dataclass(frozen=True)
class Example:
    """What one epoch takes of a picture that is made anew in each."""

    read: Callable[[], Any]
    """The picture, RGB, or the frames of a clip; several ranks do not all want it"""
    text: str
    own: bool
    """Whether the text is right for this picture alone, not for others of its group"""


@dataclass(frozen=True)
class Dataset:
    """Pictures and what is known of them."""

    source: str
    keys: list[str] = field(metadata=EACH)
    """Names of the pictures, for messages and results; each is one picture's alone"""
    read: Callable[[int], Any] = field(metadata=EACH)
    """The RGB picture at an index, or the frames of a clip in a list; BrokenInput names it if it
    cannot be read. It goes to worker processes, so it is a partial function and no lambda."""
    labels: list[int] = field(default_factory=list, metadata=EACH)
    """Class numbers; empty if there are no classes"""
    class_names: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list, metadata=EACH)
    """Texts of each picture; empty if there are none"""
    groups: list[int] = field(default_factory=list, metadata=EACH)
    """Pictures with one number show the same thing: they are positives of each other's texts"""
    group_names: list[str] = field(default_factory=list, metadata=EACH)
    """What those things are called; empty if each picture is a thing of its own"""
    domains: list[int] = field(default_factory=list, metadata=EACH)
    """The way of drawing, or of taking, that each has, by number; empty if all have one"""
    domain_names: list[str] = field(default_factory=list)
    makers: list[str] = field(default_factory=list, metadata=EACH)
    """Who drew or took each; empty if that is not known"""
    searched: list[int] = field(default_factory=list, metadata=EACH)
    """In picture retrieval: QUERY, GALLERY or both of it; empty if no pictures are looked for"""
    alike: list[int] = field(default_factory=list, metadata=EACH)
    """In picture retrieval: pictures with one number are no answers to each other"""
    choices: list[list[str]] = field(default_factory=list, metadata=EACH)
    """Texts to choose from for each item: the right one, then its opposite in time, then others;
    empty if there are none"""
    auxiliary: list[list[str]] = field(default_factory=list, metadata=EACH)
    """Further texts of each clip, by which its frames may be weighted; empty if there are none"""
    mask: Callable[[int], Any] | None = field(default=None, metadata=EACH)
    """The class of each pixel of the picture at an index, int [height, width]: -1 counts nowhere,
    BACKGROUND is no class, and class n is n + 1"""
    regions: Callable[[int], list[Any]] | None = field(default=None, metadata=EACH)
    """Regions of the picture at an index that are to be named, bool [height, width] each"""
    edits: list[Edit] = field(default_factory=list)
    """In composed retrieval: what is to be changed of which picture, and the right pictures"""
    measured: list[str] = field(default_factory=list)
    """In composed retrieval: what is reported, by its names in `edits.MEASURES`"""
    answers: list[list[int]] = field(default_factory=list)
    """What a classifier may answer: groups of classes, each scored by the best of its classes. A
    class in no group is never answered. Empty: every class, those of one name being one answer"""
    protocol: dict[str, str] = field(default_factory=dict)
    """Choices that a score depends on and that the field makes in several ways"""
    shards: list[int] = field(default_factory=list, metadata=EACH)
    """The number of the shard that each picture lies in; empty if they are files of their own"""
    stamp: Callable[[int], Stamp] | None = field(default=None, metadata=EACH)
    """Of what the picture at an index is read from; None if that cannot be said"""
    digest: Callable[[int], str | None] | None = field(default=None, metadata=EACH)
    """sha256 of the bytes that the picture at an index is read from, None if they are not there;
    as a whole None if pictures are no files of their own"""
    frames: int | None = None
    """How many frames an item has at most; None: items are pictures"""
    read_anew: Callable[[int], Any] | None = field(default=None, metadata=EACH)
    """What training reads in the place of `read`: other frames of the clip each time, by torch's
    generator; None: the same"""
    varies: bool = False
    """Whether `read` gives another picture each time, by torch's generator"""
    draw: Callable[[int, int, int], Example] | None = field(default=None, metadata=EACH)
    """From an index, an epoch and a seed to what training takes of it; None: what is read, and its
    texts"""
    trivial: dict[str, float] = field(default_factory=dict)
    """The accuracy, among all its classes, of answers that use no model, by what they are; it is a
    fact of the data, which was measured once"""
    left_out: LeftOut = field(default_factory=dict)
    """Names of what the source passed over, by reason: see `radapter.data.left_out`"""
    notes: list[str] = field(default_factory=list)
    """Further notes on the data, a line each"""

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, indices: list[int]) -> Dataset:
        """The pictures at `indices`, in that order."""
        chosen: dict[str, Any] = {"trivial": {}}
        for column in dataclasses.fields(self):
            value = getattr(self, column.name)
            if not column.metadata.get("each") or not value:
                continue
            if callable(value):
                chosen[column.name] = functools.partial(_read_chosen, value, list(indices))
            else:
                chosen[column.name] = [value[i] for i in indices]
        if self.edits:
            chosen["edits"] = placed(self.edits, {old: new for new, old in enumerate(indices)})
        return dataclasses.replace(self, **chosen)

    def account(self, broken: Sequence[str] = ()) -> dict[str, Any]:
        """For JSON: how many `pictures` there are, what was `left_out`, and `notes`.

        Args:
            broken: messages about pictures that could not be read.
        """
        found: LeftOut = {"broken": without_prefix(broken)}
        return {
            "source": self.source,
            "pictures": len(self),
            "left_out": summary_of(merged(self.left_out, found)),
            "notes": self.notes,
        }

    def fingerprint(self) -> str:
        """sha256 over names, labels, texts and the sizes of pictures in bytes, wherever they lie:
        two sets with one fingerprint are the same task. No picture is opened."""
        digest = hashlib.sha256()
        for part in (self.keys, self.labels, self.class_names, self.captions, self.groups):
            digest.update(to_bytes(repr(part)))
        if self.answers:
            digest.update(repr(self.answers).encode())
        if self.auxiliary:
            digest.update(to_bytes(repr(self.auxiliary)))
        if self.searched:
            digest.update(repr([self.searched, self.alike]).encode())
        for said in stated(self.edits):
            digest.update(to_bytes(said))
        if self.stamp:
            digest.update(repr([self.stamp(i)[0] for i in range(len(self))]).encode())
        return digest.hexdigest()


def _read_chosen(read: Callable[..., T], indices: list[int], index: int, *more: int) -> T:
    return read(indices[index], *more)


@functools.cache
def name_skipped(message: str) -> None:
    """Say on stderr, once in a process, what is left out."""
    print(f"skipped: {message}", file=sys.stderr)


def check_broken(messages: Sequence[str], limit: int, setting: str) -> None:
    """Raise an error that names the first few messages, if there are more than the limit.

    Raises:
        BrokenInput: there are more; the message names the setting of the limit.
    """
    if len(messages) > limit:
        what = "\n".join(messages[:5])
        raise BrokenInput(
            f"{what}\n{len(messages)} broken, and {setting} allows {limit}: repair or remove "
            f"them, or set {setting} higher."
        )
