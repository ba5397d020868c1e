"""WebDataset shards on local disks. A source that would run a program (`pipe:`) is refused."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from braceexpand import braceexpand
from pydantic import Field, model_validator

from radapter.data.dataset import Dataset, check_broken
from radapter.data.json_files import read_object
from radapter.data.left_out import LeftOut, Reason, merged
from radapter.data.pixels import IMAGE_EXTENSIONS
from radapter.data.settings import HeldOut, MissingData, Shuffle, located
from radapter.data.stores import ShardMembers
from radapter.data.tar_index import Member, Sample, index_shard
from radapter.errors import BrokenInput, UsageError

SIZES = "sizes.json"
"""WebDataset's name for the numbers of samples in the shards of a folder"""
LACKING: tuple[Reason, ...] = ("without picture", "without caption", "in no class")
"""Why samples are left out"""


class InShards(HeldOut):
    """Pictures in tar files."""

    captions_in: Annotated[str, Field(pattern=r"^\.[a-z0-9]+(:.+)?$")] | None = None
    """Where the captions of a sample are: a file by its ending, or a key of a JSON file, such as
    `.json:caption` in img2dataset's shards. `null`: `.txt`, with a caption in each line."""
    shuffle_buffer: Annotated[int, Field(ge=1)] | None = None
    """Shuffle the order of the shards, and samples within a buffer of this many, so that each shard
    is read nearly from start to end, which suits network disks. `null`: all samples are shuffled
    and read at random."""
    streams: Annotated[int, Field(ge=1)] = 1
    """How many shards a batch is read from, with `shuffle_buffer`. With a multiple of the number of
    devices, each device reads shards of its own; the result does not depend on that."""

    @model_validator(mode="after")
    def _streams_are_of_a_buffer(self) -> InShards:
        if self.streams > 1 and self.shuffle_buffer is None:
            raise ValueError("streams needs shuffle_buffer: set both")
        return self

    def shuffle(self, shards: Callable[[], list[int]], batch_size: int) -> Shuffle | None:
        if self.shuffle_buffer is None:
            return None
        from radapter.data.shard_order import shard_order  # which needs torch

        return functools.partial(
            shard_order, shards(), batch_size, buffer=self.shuffle_buffer, streams=self.streams
        )

    def check_batch(self, size: int) -> None:
        if size % self.streams:
            raise UsageError(
                f"optimisation.batch_size is {size}, and must be a multiple of "
                f"data.streams, {self.streams}: change one of them."
            )


class ShardsData(InShards):
    """WebDataset shards: local tar files, in which each sample is a picture and a `.txt` or `.cls`.

    If a sizes.json lies beside them, as for WebDataset ({"000.tar": 1000, ...}), a shard that it
    names has to hold that many samples, so that a download that was cut short is noticed."""

    source: Literal["shards"]
    named_by = ("shards",)
    shards: Annotated[str, Field(examples=["data/train-{000..011}.tar"])]
    """A path, or a pattern with braces, such as `data/train-{000..011}.tar`."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """How many samples all shards together have to hold, before any is held out. `null`: as many as
    sizes.json says; without it, any number."""
    class_names: list[str] | None = None
    """The names of the class numbers in `.cls`, in their order; needed for classification."""

    def in_words(self) -> str:
        return f"shards {Path(self.shards).name}"

    def open(self) -> Dataset:
        """Samples of all shards: a picture with `.txt` (a caption a line) or `.cls` (a number)."""
        if self.shards.startswith("pipe:") or "://" in self.shards:
            raise UsageError(f"data.shards: only local tar files are read, not '{self.shards}'.")
        names = [name for part in self.shards.split("::") for name in braceexpand(part)]
        paths = [located(self, path) for path in names]
        dataset = samples(self, f"shards {self.shards}", paths, self.class_names or [])
        number = len(dataset) + sum(len(dataset.left_out.get(reason, [])) for reason in LACKING)
        if self.samples not in (None, number):
            raise BrokenInput(
                f"{dataset.source} have {number:,} samples, and data.samples says "
                f"{self.samples:,}: download what is cut short or missing, or correct that number."
            )
        return dataset


class ShardSample(NamedTuple):
    """What is known of a sample when its shard has been gone through."""

    key: str
    shard: int
    picture: Member | None
    have: str
    """Names of its members, where it has no picture or several"""
    texts: list[str]
    label: int | None


def samples(
    settings: InShards, source: str, paths: list[Path], names: list[str], file: Path | None = None
) -> Dataset:
    """The samples that have what the task needs. What lacks it is skipped and named, as many as
    `broken_images` allows.

    Args:
        names: of the numbers in `.cls`.
        file: where those names are from; None: the data section.
    """
    rows, hidden, first = _rows(paths, settings.captions_in or ".txt")
    classify = settings.task == "classification"
    has_texts = any(row.texts for row in rows)
    has_labels = any(row.label is not None for row in rows)
    if not has_texts and not classify and ".json" in first.members:
        raise UsageError(_where_captions_may_be(source, first.members[".json"]))
    left_out: LeftOut = {"hidden": hidden, "missing": _gaps(paths)}
    kept: list[ShardSample] = []
    broken: list[str] = []
    for row in rows:
        reason: Reason | None = None
        if row.picture is None:
            reason, lacks = "without picture", f"single picture: its members are {row.have}"
        elif classify and has_labels and row.label is None:
            reason, lacks = "in no class", "class (.cls)"
        elif not classify and has_texts and not row.texts:
            reason, lacks = "without caption", f"caption ({settings.captions_in or '.txt'})"
        if reason is None:
            kept.append(row)
            continue
        left_out.setdefault(reason, []).append(row.key)
        broken.append(f"{source}: {row.key} has no {lacks}.")
    check_broken(broken, settings.broken_images, "data.broken_images")
    labels = [row.label for row in kept if row.label is not None]
    if classify and labels:
        if not names and file is not None:
            raise BrokenInput(f"No such file: {file}. Name the numbers in .cls there, one a line.")
        if not names:
            raise UsageError("data.class_names is missing: name the numbers in .cls there.")
        if max(labels) >= len(names):
            where = file or "class_names"
            raise BrokenInput(f"Class {max(labels)} has no name: {where} has {len(names)}.")
    pictures = [row.picture for row in kept if row.picture is not None]
    store = ShardMembers(pictures, settings.reading())
    captions = [row.texts for row in kept]
    without = len(left_out.get("without caption", []))
    return Dataset(
        source=source,
        keys=[row.key for row in kept],
        read=store.read,
        labels=labels if len(labels) == len(kept) else [],
        class_names=names,
        captions=captions if all(captions) else [],
        groups=list(range(len(kept))),
        protocol={"pictures without a caption": f"{without}, left out"} if without else {},
        shards=[row.shard for row in kept],
        stamp=store.stamp,
        digest=store.digest,
        left_out=merged(left_out),
    )


def _rows(paths: list[Path], texts_in: str) -> tuple[list[ShardSample], list[str], Sample]:
    """All samples of all shards, names of hidden members, and the first sample."""
    # Shards of one name may lie in several folders; where they do not, the name alone is enough.
    top = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    rows: list[ShardSample] = []
    hidden: list[str] = []
    wrong: list[str] = []
    first = Sample("")
    facts = functools.cache(_facts)
    for number, path in enumerate(paths):
        index = index_shard(path)
        shard = path.absolute().relative_to(top).as_posix()
        hidden += [f"{shard}/{name}" for name in index.hidden]
        wrong += _counts(path, len(index.samples), facts)
        for sample in index.samples:
            first = first if first.members else sample
            found = [e for e in sample.members if e in IMAGE_EXTENSIONS]
            one = len(found) == 1
            rows.append(
                ShardSample(
                    f"{shard}/{sample.key}",
                    number,
                    sample.members[found[0]] if one else None,
                    "" if one else ", ".join(m.name for m in sample.members.values()),
                    _texts(sample.members, texts_in),
                    _label(sample.members.get(".cls")),
                )
            )
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BrokenInput(
            f"{'; '.join(wrong[:5])}{more}: download what is cut short again, or correct that file."
        )
    return rows, hidden, first


def _gaps(paths: list[Path]) -> list[str]:
    """Names of shards that are not there between those that are: with 0.tar and 2.tar, 1.tar."""
    found = [re.fullmatch(r"(\D*)(\d+)(\D*)", path.name) for path in paths]
    parts = [match.groups() for match in found if match]
    folders = {path.parent for path in paths}
    if len(parts) < len(paths) or len({(a, c) for a, _, c in parts}) != 1 or len(folders) > 1:
        return []
    begin, digits, end = parts[0]
    there = {int(number) for _, number, _ in parts}
    absent = sorted(set(range(min(there), max(there))) - there)
    return [f"{begin}{number:0{len(digits)}}{end}" for number in absent]


def _texts(members: dict[str, Member], texts_in: str) -> list[str]:
    """Captions that are no blank lines: the lines of a text, or what a key of a `.json` holds."""
    extension, _, key = texts_in.partition(":")
    member = members.get(extension)
    if member is None:
        return []
    text = member.read().decode("utf-8", "replace")
    if not key:
        lines = text.splitlines()
    else:
        try:
            found = json.loads(text).get(key) or []
        except (ValueError, AttributeError) as error:
            raise BrokenInput(f"{member.shard}: {member.name} is not valid JSON: {error}") from None
        lines = [str(line) for line in found] if isinstance(found, list) else [str(found)]
    return [line.strip() for line in lines if line.strip()]


def _label(member: Member | None) -> int | None:
    if member is None:
        return None
    text = member.read().decode("ascii", "replace").strip()
    if not text.isdigit():
        raise BrokenInput(f"{member.shard}: {member.name} is not a class number: {text!r}")
    return int(text)


def _where_captions_may_be(source: str, member: Member) -> str:
    """That there are no captions in `.txt`, and which keys a `.json` has."""
    try:
        keys = ", ".join(json.loads(member.read()))
    except (ValueError, TypeError):
        return f"{source} has no captions (.txt), and {member.name} is not a JSON object."
    return (
        f"{source} has no captions (.txt). {member.name} has {keys}: data.captions_in takes one, "
        "such as .json:caption."
    )


def _counts(path: Path, samples: int, facts: Callable[[Path], dict[str, Any]]) -> list[str]:
    """What files beside a shard say of its number of samples, if that is another number."""
    said = {SIZES: facts(path.parent / SIZES).get(path.name)}
    name = f"{path.stem}_stats.json"  # img2dataset's
    said[name] = facts(path.parent / name).get("successes")
    return [
        f"{path} has {samples:,} samples, not {number}, by the {file} beside"
        for file, number in said.items()
        if number is not None and str(number) != str(samples)  # some write the numbers as texts
    ]


def _facts(path: Path) -> dict[str, Any]:
    """A JSON file beside a shard; nothing if there is none."""
    try:
        return read_object(path)
    except MissingData:
        return {}
