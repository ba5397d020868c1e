"""Which split of a set a name means, be it of a folder, a shard, a table or a cell.

A test split is never trained on, nor is alpha chosen by it. Where names leave a doubt the user
decides, by `--split`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from radapter.errors import UsageError, nearest

Split = Literal["train", "validation", "test"]
STEMS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "validation": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "heldout", "holdout"),
}
SPLIT_OF: dict[str, Split] = {stem: split for split, stems in STEMS.items() for stem in stems}
BESIDE = (
    "all", "annotations", "captions", "data", "dataset", "datasets", "dir", "directory", "dirs",
    "examples", "file", "files", "folder", "folders",
    "images", "image", "imgs", "img", "labels", "list", "metadata", "my", "new", "of", "photos",
    "pics", "pictures", "raw", "samples", "set", "sets", "split", "splits", "standard",
)  # fmt: skip
"""Words that stand beside a split's name and say nothing of what is in it"""
GLUED = re.compile(rf"({'|'.join(SPLIT_OF)})(?:s|{'|'.join(BESIDE)})")
SHORT: dict[str, Split] = {"tr": "train", "ts": "test"}
"""Said beside other words alone, as in imagesTr: by themselves they may be anything"""
LIKE: dict[str, Split] = {"train": "train", "val": "validation", "valid": "validation",
                          "test": "test"}  # fmt: skip


class Doubt(UsageError):
    """There are two readings, and one might train on test data: the user has to choose."""


@dataclass(frozen=True)
class Splits:
    """Names by the split that they mean."""

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def named(self) -> list[str]:
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Chosen:
    """What is trained on and what alpha is chosen by; `left` are the others."""

    train: str
    validation: str | None
    left: list[str]
    notes: list[str]


def split_of_name(name: str) -> Split | None:
    """`train_set`, `Training`, `flowers-train2017` and `trainset` are `train`."""
    found = {split for split in _splits(name) if split}
    if found == {"train", "validation"}:  # train_val is both, to be trained on
        return "train"
    return found.pop() if len(found) == 1 else None


def is_plain(name: str) -> bool:
    """Whether a name says nothing but a split: `test_images` does, `test tube` does not."""
    return split_of_name(name) is not None and all(
        split or word in BESIDE for word, split in zip(_words(name), _splits(name), strict=True)
    )


def like_splits(names: Iterable[str]) -> dict[str, Split]:
    """Names that begin or end with train, val, valid or test: `xtrain` is, and so is `valley`."""
    return {
        name: split
        for name in names
        for stem, split in LIKE.items()
        if name.lower().startswith(stem) or name.lower().endswith(stem)
    }


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def _splits(name: str) -> list[Split | None]:
    """Of each word."""
    words = _words(name)
    if len(words) == 2 and words[0] in BESIDE and words[1] in SHORT:
        return [None, SHORT[words[1]]]
    glued = [GLUED.fullmatch(word) for word in words]
    return [SPLIT_OF.get(g.group(1) if g else word) for word, g in zip(words, glued, strict=True)]


def sort(names: Iterable[str]) -> Splits:
    """Names by the split that they mean."""
    splits = Splits()
    for name in names:
        getattr(splits, split_of_name(name) or "others").append(name)
    return splits


def choose(names: list[str], wanted: str | None, where: str, what: str) -> Chosen | None:
    """Which of some names is trained on; None: they are no splits.

    Args:
        wanted: what the user says: one of the names, or the split that one of them means; "none":
            they are no splits.
        where: what has them, for messages.
        what: what they are, such as "folders".

    Raises:
        UsageError: the names are ambiguous.
    """
    splits = sort(names)
    if wanted == "none" or (wanted is None and not splits.named):
        return None
    if wanted is not None:
        train = _wanted(names, splits, wanted, where, what)
    elif len(splits.train) == 1 and not splits.others:
        train = splits.train[0]
    else:
        raise Doubt(_question(splits, where, what))
    validations = [name for name in splits.validation if name != train]
    validation = validations[0] if len(validations) == 1 else None
    left = [name for name in names if name not in (train, validation)]
    notes = []
    if left:
        notes.append(f"neither trained on nor used for alpha: {_list(left)}.")
    if len(validations) > 1:
        notes.append(f"{_list(validations)} all look like validation, so none of them is used.")
    return Chosen(train, validation, left, notes)


def _wanted(names: list[str], splits: Splits, wanted: str, where: str, what: str) -> str:
    meant = getattr(splits, split_of_name(wanted) or "others") if wanted not in names else [wanted]
    if len(meant) == 1 and (wanted in names or is_plain(wanted)):
        return str(meant[0])
    raise Doubt(f"--split {wanted}: {where} has {what} {_list(names)}.{nearest(wanted, names)}")


def _question(splits: Splits, where: str, what: str) -> str:
    """Both readings, and the option that chooses each."""
    named = f"{where} has {what} called like splits ({_list(splits.named)})"
    if splits.others:
        named += f" beside others ({_list(splits.others)})"
    elif not splits.train:
        named += ", and none of them is for training"
    else:
        named += ", several of them for training"
    example = (splits.train or splits.others or splits.named)[0]
    quoted = f"'{example}'" if " " in example else example
    return (
        f"{named}. Say which to train on: --split {quoted} takes that one and leaves test "
        "pictures and the others alone; --split none takes all of them."
    )


def check_unmixed(keys: list[str], where: str, items: str = "pictures") -> None:
    """Pictures whose paths say that they are of several splits must not be trained on as one set.

    Args:
        keys: paths of the pictures, with `/`.
        items: what they are called.

    Raises:
        UsageError: some lie in a folder or shard called like a test or validation split and others
            do not, or nearly all file names begin with a split and there are several.
    """
    paths = [PurePosixPath(key) for key in keys]
    splits = [_first_split(path.parts[:-1]) for path in paths]  # by folders
    seen = {split for split in splits if split}
    mixed = len(set(splits)) > 1 and not seen.isdisjoint({"test", "validation"})
    if not mixed:
        splits = [_first_split(re.split(r"[-_. ]", path.name)[:2]) for path in paths]
        seen = {split for split in splits if split}
        mixed = len(seen) > 1 and sum(map(bool, splits)) > 0.9 * len(splits)
    if mixed:
        numbers = {split: splits.count(split) for split in sorted(seen)}
        counts = ", ".join(f"{number:,} of {split}" for split, number in numbers.items())
        raise Doubt(
            f"By their paths the {items} of {where} are of several splits ({counts}), and no "
            "folder, column or list separates them. Give each split a folder or table of its own "
            "(train, val, test), or take them all as one set: --split none."
        )


def _first_split(parts: Iterable[str]) -> Split | None:
    return next((split_of_name(part) for part in parts if is_plain(part)), None)


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
