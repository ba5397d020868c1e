"""WebDataset shards on local disks. A source that would run a program (`pipe:`) is refused."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from radapter.data.dataset import Dataset, MissingData, Stamp, check_broken
from radapter.data.left_out import LeftOut, Reason, count, merged
from radapter.data.picture_files import read_json
from radapter.data.pixels import IMAGE_EXTENSIONS, Reading, reading_of
from radapter.data.tar_index import Member, Sample, index_shard
from radapter.errors import BrokenInput, UsageError
from radapter.recipe_data import ClipBenchmarkData, InShards, ShardsData, located

SIZES = "sizes.json"
"""WebDataset's name for the numbers of samples in the shards of a folder"""
LACKING: tuple[Reason, ...] = ("without picture", "without caption", "in no class")
"""Why samples are left out"""


def open_shards(settings: ShardsData) -> Dataset:
    """Samples of all shards: a picture with `.txt` (captions, one a line) or `.cls` (a number).

    Raises:
        BrokenInput: a shard is missing or damaged, or has another number of samples than it should.
        UsageError: the shards are not local, or classes have no names.
    """
    from webdataset.shardlists import expand_urls

    if settings.shards.startswith("pipe:") or "://" in settings.shards:
        raise UsageError(f"shards: only local tar files are read, found '{settings.shards}'")
    paths = [located(settings, url) for url in expand_urls(settings.shards)]
    dataset = _open(settings, f"shards {settings.shards}", paths, settings.class_names or [])
    passed = {reason: names for reason, names in dataset.left_out.items() if reason in LACKING}
    samples = len(dataset) + count(passed)
    if settings.samples not in (None, samples):
        raise BrokenInput(
            f"{dataset.source} have {samples:,} samples, and data.samples says "
            f"{settings.samples:,}: fetch what is cut short or missing, or mend that number."
        )
    return dataset


def open_clip_benchmark(settings: ClipBenchmarkData) -> Dataset:
    """The shards of a split in clip-benchmark's layout, its class names from the file beside them.

    Raises:
        BrokenInput: the split, its nshards.txt, a shard or the class names are missing, or its
            templates are damaged.
        UsageError: the set has several classes a picture.
    """
    root = located(settings, settings.root)
    split = root / settings.dataset_split
    try:
        number = int((split / "nshards.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        have = ", ".join(sorted(p.parent.name for p in root.glob("*/nshards.txt"))) or "none"
        raise BrokenInput(
            f"{split} has no nshards.txt with the number of its shards. Splits that are there "
            f"(data.dataset_split): {have}."
        ) from None
    kind = root / "dataset_type.txt"
    if kind.is_file() and kind.read_text(encoding="utf-8").strip().lower() == "multilabel":
        raise UsageError(f"{root} has several classes a picture, which is no task of ours.")
    if settings.task == "classification":
        settings.own_prompts()  # damaged ones are named before any work is done
    names = root / "classnames.txt"
    class_names: list[str] = []
    if settings.task == "classification" and names.is_file():
        class_names = [
            line.strip() for line in names.read_text(encoding="utf-8").rstrip().splitlines()
        ]
    paths = [split / f"{i}.tar" for i in range(number)]
    return _open(settings, f"clip-benchmark {split}", paths, class_names, str(names))


class Row(NamedTuple):
    """What is known of a sample when its shard has been gone through."""

    key: str
    shard: int
    picture: Member | None
    have: str
    """Names of its members, where it has no picture or several"""
    texts: list[str]
    label: int | None


def _open(
    settings: InShards, source: str, paths: list[Path], names: list[str], where: str = "class_names"
) -> Dataset:
    """The samples that have what the task needs. What lacks it is skipped and named, as many as
    `broken_images` allows."""
    rows, hidden, first = _rows(paths, settings.captions_in or ".txt")
    classify = settings.task == "classification"
    has_texts = any(row.texts for row in rows)
    has_labels = any(row.label is not None for row in rows)
    if not has_texts and not classify and ".json" in first.members:
        raise UsageError(_where_captions_may_be(source, first.members[".json"]))
    left_out: LeftOut = {"hidden": hidden, "missing": _gaps(paths)}
    kept: list[Row] = []
    broken: list[str] = []
    for row in rows:
        reason: Reason | None = None
        if row.picture is None:
            reason, lacks = "without picture", f"one picture: its members are {row.have}"
        elif classify and has_labels and row.label is None:
            reason, lacks = "in no class", "a class (.cls)"
        elif not classify and has_texts and not row.texts:
            reason, lacks = "without caption", f"a caption ({settings.captions_in or '.txt'})"
        if reason is None:
            kept.append(row)
            continue
        left_out.setdefault(reason, []).append(row.key)
        broken.append(f"{source}: {row.key} has not {lacks}.")
    check_broken(broken, settings.broken_images, "data.broken_images")
    labels = [row.label for row in kept if row.label is not None]
    if classify and labels:
        if not names and isinstance(settings, ClipBenchmarkData):
            raise BrokenInput(f"No such file: {where}. It names the numbers in .cls, one a line.")
        if not names:
            raise UsageError("data.class_names is missing: it names the numbers in .cls")
        if max(labels) >= len(names):
            raise BrokenInput(f"Class {max(labels)} has no name: {where} has {len(names)}.")
    pictures = [row.picture for row in kept if row.picture is not None]
    captions = [row.texts for row in kept]
    without = len(left_out.get("without caption", []))
    return Dataset(
        source=source,
        keys=[row.key for row in kept],
        read=functools.partial(_read, pictures, reading_of(settings)),
        labels=labels if len(labels) == len(kept) else [],
        class_names=names,
        captions=captions if all(captions) else [],
        groups=list(range(len(kept))),
        protocol={"pictures without a caption": f"{without}, left out"} if without else {},
        shards=[row.shard for row in kept],
        stamp=functools.partial(_stamp, pictures),
        digest=functools.partial(_digest, pictures),
        left_out=merged(left_out),
    )


def _rows(paths: list[Path], texts_in: str) -> tuple[list[Row], list[str], Sample]:
    """All samples of all shards, names of hidden members, and the first sample.

    Raises:
        BrokenInput: a shard is damaged, or a file beside it says another number of samples.
    """
    # Shards of one name may lie in several folders; where they do not, the name alone is enough.
    top = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    rows: list[Row] = []
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
                Row(
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
            f"{'; '.join(wrong[:5])}{more}: fetch what is cut short again, or mend that file."
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
    """Captions that are no blank lines: the lines of a text, or what a key of a `.json` holds.

    Raises:
        BrokenInput: a `.json` is none.
    """
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
            raise BrokenInput(f"{member.shard}: {member.name} is no JSON object: {error}") from None
        lines = [str(line) for line in found] if isinstance(found, list) else [str(found)]
    return [line.strip() for line in lines if line.strip()]


def _label(member: Member | None) -> int | None:
    if member is None:
        return None
    text = member.read().decode("ascii", "replace").strip()
    if not text.isdigit():
        raise BrokenInput(f"{member.shard}: {member.name} is no class number: {text!r}")
    return int(text)


def _where_captions_may_be(source: str, member: Member) -> str:
    """That there are no captions in `.txt`, and which keys a `.json` has."""
    try:
        keys = ", ".join(json.loads(member.read()))
    except (ValueError, TypeError):
        return f"{source} has no captions (.txt), and {member.name} is no JSON object."
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
        return read_json(path)
    except MissingData:
        return {}


def _read(pictures: list[Member], reading: Reading, index: int) -> Image.Image:
    return pictures[index].picture(reading)


def _digest(pictures: list[Member], index: int) -> str:
    return hashlib.sha256(pictures[index].read()).hexdigest()


def _stamp(pictures: list[Member], index: int) -> Stamp:
    return pictures[index].stamp()
