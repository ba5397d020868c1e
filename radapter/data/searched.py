"""Pictures that are looked for by pictures: queries and their gallery as one data set."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from radapter.classes import first_of_name, key_of
from radapter.data.dataset import GALLERY, QUERY, Dataset
from radapter.data.left_out import merged
from radapter.errors import BrokenInput, UsageError, nearest

T = TypeVar("T")
LeftOutOf = Literal["picture", "group", "maker"]
WORDS = {
    "picture": "the query's own picture",
    "group": "pictures of the query's own thing",
    "maker": "pictures by the query's own maker",
}


def searchable(
    queries: Dataset, gallery: Sequence[Dataset] | None, leave_out: LeftOutOf = "picture"
) -> Dataset:
    """Queries and gallery as one data set, with `searched` and `alike`; classes are one by name.

    A query without a right picture is left out, as `without answer`.

    Args:
        queries: pictures with classes.
        gallery: data sets with classes that make it together; None: the queries themselves.
        leave_out: what of a query's gallery is no answer, right or wrong; a `group` is what has
            one number in `groups`.

    Raises:
        BrokenInput: there are no classes, or no query has a right picture.
        UsageError: makers are to be left out, and a data set does not say who they are.
    """
    parts = [queries, *(gallery or ())]
    for part in parts:
        if not part.labels:
            raise BrokenInput(f"{part.source} has no classes.")
        if leave_out == "maker" and not part.makers:
            raise UsageError(
                f"{part.source} does not say who made its pictures, so these cannot be left out: "
                "gallery.leave_out takes picture or group."
            )
    places: dict[str, tuple[int, int]] = {}
    searched: dict[str, int] = {}
    for number, part in enumerate(parts):
        role = GALLERY if number else QUERY if gallery is not None else QUERY | GALLERY
        for i, key in enumerate(part.keys):
            name = name_in(parts, places, number, i, key)
            places.setdefault(name, (number, i))
            searched[name] = searched.get(name, 0) | role
    joined = _joined(parts, places, list(searched.values()), leave_out)
    return _answered(joined)


def of_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The pictures of these classes.

    Raises:
        UsageError: it has no class of such a name.
    """
    known = {key_of(name) for name in dataset.class_names}
    for name in names:
        if key_of(name) not in known:
            near = nearest(name, dataset.class_names)
            raise UsageError(f"{dataset.source} has no class '{name}'.{near}")
    wanted = {key_of(name) for name in names}
    kept = [key_of(dataset.class_names[label]) in wanted for label in dataset.labels]
    return dataset.select([i for i, keep in enumerate(kept) if keep])


def name_in(
    parts: Sequence[Dataset], places: dict[str, tuple[int, int]], number: int, i: int, key: str
) -> str:
    """What a picture is called: one that is in two parts has one name, another of that name
    another."""
    if key not in places:
        return key
    there, j = places[key]
    stamps = parts[number].stamp, parts[there].stamp
    if stamps[0] is not None and stamps[1] is not None and stamps[0](i) == stamps[1](j):
        return key
    return name_in(parts, places, number, i, f"gallery/{key}")


def _joined(
    parts: Sequence[Dataset],
    places: dict[str, tuple[int, int]],
    searched: list[int],
    leave_out: LeftOutOf,
) -> Dataset:
    names = [name for part in parts for name in part.class_names]
    kept = list(dict.fromkeys(first_of_name(names)))
    place = {key_of(names[n]): label for label, n in enumerate(kept)}
    numbers = [[place[key_of(name)] for name in part.class_names] for part in parts]
    where = list(places.values())
    groups = [parts[p].groups[i] for p, i in where]
    alike = list(range(len(where)))
    if leave_out == "group":
        alike = groups
    elif leave_out == "maker":
        makers = {name: n for n, name in enumerate(sorted({m for p in parts for m in p.makers}))}
        alike = [makers[parts[p].makers[i]] for p, i in where]
    stamps = [part.stamp for part in parts if part.stamp is not None]
    digests = [part.digest for part in parts if part.digest is not None]
    total = sum(bool(role & GALLERY) for role in searched)
    sources = " + ".join(part.source for part in parts[1:]) or parts[0].source
    said = f"{total:,} pictures, {sources}; left out: {WORDS[leave_out]}"
    return Dataset(
        source=parts[0].source,
        keys=list(places),
        read=functools.partial(of_part, [part.read for part in parts], where),
        labels=[numbers[p][parts[p].labels[i]] for p, i in where],
        class_names=[names[n] for n in kept],
        groups=groups,
        searched=searched,
        alike=alike,
        protocol={k: v for part in reversed(parts) for k, v in part.protocol.items()}
        | {"gallery": said},
        stamp=all_or_none(stamps, parts, where),
        digest=all_or_none(digests, parts, where),
        left_out=merged(*(part.left_out for part in parts)),
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def all_or_none(
    of: list[Callable[[int], T]], parts: Sequence[Dataset], where: list[tuple[int, int]]
) -> Callable[[int], T] | None:
    """What reads from the part of each row, where every part has it; `where` is (part, place)."""
    return functools.partial(of_part, of, where) if len(of) == len(parts) else None


def of_part(of: list[Callable[[int], T]], where: list[tuple[int, int]], index: int) -> T:
    """What that part has at that place."""
    part, i = where[index]
    return of[part](i)


def _answered(dataset: Dataset) -> Dataset:
    """Without the queries that have no right picture; those that are in the gallery stay there."""
    in_gallery = [bool(role & GALLERY) for role in dataset.searched]
    pairs = list(zip(dataset.labels, dataset.alike, strict=True))
    right = Counter(label for (label, _), there in zip(pairs, in_gallery, strict=True) if there)
    own = Counter(pair for pair, there in zip(pairs, in_gallery, strict=True) if there)
    without = [
        i
        for i, role in enumerate(dataset.searched)
        if role & QUERY and right[pairs[i][0]] == own[pairs[i]]
    ]
    if not without:
        return dataset
    for i in without:
        dataset.searched[i] &= ~QUERY
    if not any(role & QUERY for role in dataset.searched):
        raise BrokenInput(f"{dataset.source} has no query with a right picture in its gallery.")
    names = [dataset.keys[i] for i in without]
    dataset.left_out.update(merged(dataset.left_out, {"without answer": names}))
    return dataset.select([i for i, role in enumerate(dataset.searched) if role])
