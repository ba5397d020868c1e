"""The built-in set: 1,059 concepts, each in eight styles; splits are by concept.

Classification: the class is the concept's Unicode subgroup, of those with at least five concepts.
Captions: the concept's name and its keywords. Pictures are 64 x 64. See NOTICE.md for licences.
"""

from __future__ import annotations

import functools
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from radapter.data.tar_index import Member, index_shard

HERE = Path(__file__).parent
FOLDS = 5
DRAWS = 5
MASKS = "masks.xz"
SIZE = 64
SMALLEST_CLASS = 5
SMALLEST_DRAWN = 8
"""Concepts of a class that draws have: its own is no answer to a query, so fewer are too few"""


@functools.cache
def concepts() -> list[dict[str, Any]]:
    """Every concept: hexcode, name, keywords, group, subgroup, fold; sorted by hexcode."""
    return json.loads((HERE / "concepts.json").read_text(encoding="utf-8"))


@functools.cache
def styles() -> list[str]:
    """The designers' styles that come with radapter, sorted."""
    return sorted(path.stem for path in HERE.glob("*.tar"))


@functools.cache
def class_names() -> list[str]:
    """The subgroups with enough concepts to be classes, sorted."""
    return subgroups(SMALLEST_CLASS)


def subgroups(smallest: int) -> list[str]:
    """Those with so many concepts, sorted."""
    sizes = Counter(concept["subgroup"] for concept in concepts())
    return sorted(name for name, size in sizes.items() if size >= smallest)


@functools.cache
def drawn_classes(draw: int, part: str) -> list[str]:
    """The classes of draw 1 to 5 that are `seen` (37) or `unseen` (18), sorted. The 18 are the
    first that `numpy.random.default_rng(draw - 1)` permutes to; they are kept in a file, as NumPy
    may draw others in a later version."""
    unseen = json.loads((HERE / "draws.json").read_text(encoding="utf-8"))[draw - 1]
    names = subgroups(SMALLEST_DRAWN)
    return [name for name in names if (name in unseen) == (part == "unseen")]


def in_split(concept: dict[str, Any], split: str, fold: int) -> bool:
    """Fold f tests on the concepts of fold f, validates on those of the next, trains on three."""
    if split == "all":
        return True
    distance = (concept["fold"] - fold) % FOLDS
    return {"test": distance == 0, "validation": distance == 1, "train": distance > 1}[split]


def captions(concept: dict[str, Any], kinds: list[str]) -> list[str]:
    """The texts of a concept, of the kinds that are asked for, each once."""
    texts = {
        "name": concept["name"],
        "keywords": ", ".join(concept["keywords"]),
        "kind": f"{concept['subgroup']}: {concept['name']}",
        "class": f"a picture of {concept['subgroup']}.",
    }
    return list(dict.fromkeys(texts[kind] for kind in kinds if texts[kind]))


@functools.cache
def picture(style: str, hexcode: str) -> Image.Image:
    """Decoded once and kept: the whole set takes 100 MB."""
    return member(style, hexcode).picture()


def mask(style: str, hexcode: str) -> Any:
    """Which pixels of a picture are the emoji's, bool [64, 64]; the others are its white ground."""
    number = styles().index(style) * len(concepts()) + _places()[hexcode]
    return _masks()[number]


@functools.cache
def _places() -> dict[str, int]:
    return {concept["hexcode"]: place for place, concept in enumerate(concepts())}


@functools.cache
def _masks() -> Any:
    import numpy as np  # here, as recipes are checked without it

    bits = np.frombuffer(lzma.decompress((HERE / MASKS).read_bytes()), np.uint8)
    return np.unpackbits(bits).reshape(-1, SIZE, SIZE).astype(bool)


def member(style: str, hexcode: str) -> Member:
    """Where a picture lies."""
    return _index(style)[hexcode][".webp"]


@functools.cache
def _index(style: str) -> dict[str, dict[str, Member]]:
    return {s.key: s.members for s in index_shard(HERE / f"{style}.tar").samples}
