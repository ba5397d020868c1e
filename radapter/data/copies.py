"""Exact copies: a picture that is trained on and held out says nothing of new pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from radapter.data.dataset import Dataset
from radapter.data.left_out import FIRST, listed

MOST = 200_000
"""Of more pictures no copies are looked for: too many of one size would have to be read"""


def find_copies(train: Dataset, held: Dataset | None = None) -> dict[str, Any]:
    """Pictures with the bytes of another one, for JSON.

    Only pictures of one size are read.

    Returns:
        `held_out`: those held out that are trained on, `train`: those trained on that are copies of
        an earlier one; each with its `count` and the `first` few [name, the other's name]. Of more
        than `MOST` pictures `not_looked_for` alone, why; of a source that does not tell files apart
        nothing.
    """
    parts = [train] if held is None else [train, held]
    if any(p.digest is None or p.stamp is None for p in parts):
        return {}
    if sum(map(len, parts)) > MOST:
        return {"not_looked_for": f"as there are more than {MOST:,} pictures"}
    within: list[tuple[str, str]] = []
    across: list[tuple[str, str]] = []
    for same in alike(parts):
        trained = [train.keys[i] for part, i in same if part == 0]
        if not trained:
            continue
        within += [(name, trained[0]) for name in trained[1:]]
        across += [(held.keys[i], trained[0]) for part, i in same if held and part == 1]
    return {
        name: {"count": len(found), "first": [list(pair) for pair in sorted(found)[:FIRST]]}
        for name, found in (("held_out", across), ("train", within))
        if found
    }


def lines_of_copies(copies: dict[str, Any]) -> list[str]:
    """Lines for people about these copies; empty if there are none."""
    if "not_looked_for" in copies:
        return [f"duplicates: not looked for, {copies['not_looked_for']}"]
    lines = []
    for kind, facts in copies.items():
        first = listed([f"{name} = {other}" for name, other in facts["first"]], facts["count"])
        words = _words(kind, facts["count"])
        lines.append(f"duplicates: {facts['count']:,} {words} ({first})")
    return lines


def _words(kind: str, count: int) -> str:
    copies = "is an exact copy of another picture" if count == 1 else "are exact copies of others"
    if kind == "train":
        return copies
    held = "picture is" if count == 1 else "pictures are"
    return f"held-out {held} trained on too, byte for byte, so scores are too good"


def alike(parts: list[Dataset]) -> Iterator[list[tuple[int, int]]]:
    """(part, place) of the pictures that have the same bytes, two or more of each. All parts have
    `stamp` and `digest`; only pictures of one size are read."""
    of_size: dict[int, list[tuple[int, int]]] = {}
    for part, dataset in enumerate(parts):
        assert dataset.stamp is not None
        for i in range(len(dataset)):
            of_size.setdefault(dataset.stamp(i)[0], []).append((part, i))
    for size, same in of_size.items():
        if size < 0 or len(same) < 2:  # -1: it is not there
            continue
        of_content: dict[str | None, list[tuple[int, int]]] = {}
        for part, i in same:
            digest = parts[part].digest
            assert digest is not None
            of_content.setdefault(digest(i), []).append((part, i))
        yield from (
            alike for key, alike in of_content.items() if key is not None and len(alike) > 1
        )
