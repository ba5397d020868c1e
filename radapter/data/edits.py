"""Composed retrieval as data: a reference picture, what is to be changed of it, the right pictures.

Pictures are places in a data set. What benchmarks report of such edits is named in MEASURES.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A reference picture and what is to be changed of it."""

    name: str
    """What a benchmark's server calls it"""
    reference: int
    texts: tuple[str, ...]
    """What is to be changed: one wording, or several whose features are averaged"""
    targets: tuple[int, ...]
    """The right pictures, first the one that the text was written for; empty where only a server
    knows them"""
    gallery: Sequence[int]
    """The pictures that are ranked: one object for all edits that have the same"""
    without_reference: bool = True
    """Whether the reference is taken out of the gallery"""
    subset: tuple[int, ...] = ()
    """The pictures of the gallery that subset recall ranks, without the reference"""
    kind: str = ""
    """Of what kind the change is; empty if kinds are not told apart"""
    chooses: bool = False
    """Settings are chosen on it, and it is not scored"""
    told: str = ""
    """A text that tells of the right picture, for training; empty where nobody wrote one"""


@dataclass(frozen=True)
class Measure:
    """What is read off the ranks of the right pictures of an edit."""

    title: str
    k: int
    """Only the first k count"""
    precision: bool = False
    """Average precision at k; else whether any right picture is among the first k"""
    subset: bool = False
    """Ranked in the subset; else in the gallery"""
    by_kind: bool = False
    """Every kind of edit counts the same; else every edit"""


MEASURES = {
    **{f"r{k}": Measure(f"R@{k}", k) for k in (1, 2, 3, 5, 10, 50)},
    "kinds_r1": Measure("R@1, mean of kinds", 1, by_kind=True),
    **{f"subset_r{k}": Measure(f"subset R@{k}", k, subset=True) for k in (1, 2, 3)},
    **{f"map_{k}": Measure(f"mAP@{k}", k, precision=True) for k in (5, 10, 25, 50)},
}
"""By the ends of their names in results"""


def placed(edits: Sequence[Edit], place: Mapping[int, int]) -> list[Edit]:
    """The edits among other pictures, or fewer.

    Those whose reference is not there are gone, and those that had right pictures and have none.

    Args:
        place: from a picture's place to its new one; what is not in it is gone.
    """
    galleries: dict[int, list[int]] = {}
    found = []
    for edit in edits:
        targets = tuple(place[i] for i in edit.targets if i in place)
        if edit.reference not in place or (edit.targets and not targets):
            continue
        if id(edit.gallery) not in galleries:
            galleries[id(edit.gallery)] = [place[i] for i in edit.gallery if i in place]
        found.append(
            dataclasses.replace(
                edit,
                reference=place[edit.reference],
                targets=targets,
                gallery=galleries[id(edit.gallery)],
                subset=tuple(place[i] for i in edit.subset if i in place),
            )
        )
    return found


def stated(edits: Sequence[Edit]) -> Iterator[str]:
    """All that the edits say, each gallery once."""
    galleries: dict[int, int] = {}
    for edit in edits:
        if id(edit.gallery) not in galleries:
            galleries[id(edit.gallery)] = len(galleries)
            yield repr(list(edit.gallery))
        row = {**vars(edit), "gallery": galleries[id(edit.gallery)]}
        row |= {"told": edit.told} if row.pop("told") else {}
        yield repr(list(row.values()))
