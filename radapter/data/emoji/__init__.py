"""The built-in set: 1,059 concepts, each in eight styles; splits are by concept.

Classification: the class is the concept's Unicode subgroup, of those with at least five concepts.
Captions: the concept's name and its keywords. Pictures are 64 x 64. See NOTICE.md for licences.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from radapter.data.dataset import Dataset, Stamp
from radapter.data.tar_index import index_shard
from radapter.errors import UsageError, nearest
from radapter.recipe_data import EmojiData

HERE = Path(__file__).parent
FOLDS = 5
SMALLEST_CLASS = 5


@functools.cache
def concepts() -> list[dict[str, Any]]:
    """Every concept: hexcode, name, keywords, group, subgroup, fold; sorted by hexcode."""
    return json.loads((HERE / "concepts.json").read_text(encoding="utf-8"))


@functools.cache
def styles() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.tar"))


@functools.cache
def class_names() -> list[str]:
    """The subgroups with enough concepts to be classes, sorted."""
    sizes = Counter(concept["subgroup"] for concept in concepts())
    return sorted(name for name, size in sizes.items() if size >= SMALLEST_CLASS)


def in_split(concept: dict[str, Any], split: str, fold: int) -> bool:
    """Fold f tests on the concepts of fold f, validates on those of the next, trains on three."""
    if split == "all":
        return True
    distance = (concept["fold"] - fold) % FOLDS
    return {"test": distance == 0, "validation": distance == 1, "train": distance > 1}[split]


def captions(concept: dict[str, Any], kinds: list[str]) -> list[str]:
    texts = {
        "name": concept["name"],
        "keywords": ", ".join(concept["keywords"]),
        "kind": f"{concept['subgroup']}: {concept['name']}",
        "class": f"a picture of {concept['subgroup']}.",
    }
    return list(dict.fromkeys(texts[kind] for kind in kinds if texts[kind]))


@functools.cache
def _picture(style: str, hexcode: str) -> Image.Image:
    """Decoded once and kept: the whole set takes 100 MB."""
    return _index(style)[hexcode][".webp"].picture()


@functools.cache
def _index(style: str) -> Any:
    return {s.key: s.members for s in index_shard(HERE / f"{style}.tar").samples}


def open_emoji(settings: EmojiData) -> Dataset:
    """Pictures of the chosen styles and split; the group is the concept, in whatever style."""
    for style in settings.styles:
        if style not in styles():
            raise UsageError(f"Unknown emoji style '{style}'.{nearest(style, styles())}")
    names = class_names()
    classify = settings.task == "classification"
    chosen = [
        (style, number, concept)
        for style in settings.styles
        for number, concept in enumerate(concepts())
        if in_split(concept, settings.split, settings.fold)
        and not (classify and concept["subgroup"] not in names)
    ]
    return Dataset(
        source=f"emoji {'+'.join(settings.styles)}, {settings.split} of fold {settings.fold}",
        keys=[f"{style}/{concept['hexcode']}" for style, _, concept in chosen],
        read=functools.partial(_read, [(style, c["hexcode"]) for style, _, c in chosen]),
        labels=[names.index(c["subgroup"]) for _, _, c in chosen] if classify else [],
        class_names=names if classify else [],
        captions=[captions(concept, list(settings.captions)) for _, _, concept in chosen],
        groups=[number for _, number, _ in chosen],
        stamp=functools.partial(_stamp, [(style, c["hexcode"]) for style, _, c in chosen]),
    )


def _read(pictures: list[tuple[str, str]], index: int) -> Image.Image:
    return _picture(*pictures[index])


def _stamp(pictures: list[tuple[str, str]], index: int) -> Stamp:
    style, hexcode = pictures[index]
    stamp: Stamp = _index(style)[hexcode][".webp"].stamp()
    return stamp
