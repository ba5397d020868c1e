"""Tar shards, in one folder or a folder a split: patterns for them, and what is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from radapter.data.tar_index import Member, index_shard
from radapter.errors import UsageError
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import choose

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


def is_shard(path: Path) -> bool:
    """Whether a file is called as a shard is."""
    return path.suffix.lower() == ".tar" and not path.name.startswith(".")


def refuse_compressed(path: Path) -> None:
    """Raises UsageError for an archive that cannot be read at random."""
    if path.name.lower().endswith(COMPRESSED):
        raise UsageError(
            f"{path} is compressed, and pictures are read at random from plain .tar files and "
            f"folders: unpack it first (tar xf {path.name}, unzip {path.name})."
        )


def has_words(path: Path) -> bool:
    """Whether a shard's first sample has a caption or a class."""
    samples = index_shard(path).samples
    return bool(samples) and not {".txt", ".json", ".cls"}.isdisjoint(samples[0].members)


def shards_in(spot: Spot, shards: list[Path], wanted: Wanted) -> Found:
    """The shards of a folder, by split where their names say it."""
    series: dict[str, list[Path]] = {}
    for path in shards:
        begin = re.split(r"\d{2,}|\d+$", path.stem)[0].strip("-_. ") or path.stem
        series.setdefault(begin, []).append(path)
    chosen = choose(list(series), wanted.split, str(spot.path), "shards")
    if chosen is None:
        return _found(spot, shards, wanted)
    found = _found(spot, series[chosen.train], wanted)
    return found.choose(chosen, lambda name: {"shards": _pattern(spot, series[name])})


def shard(spot: Spot, wanted: Wanted) -> Found:
    """One shard that was named."""
    return _found(spot.above, [spot.path], wanted)


def _found(spot: Spot, shards: list[Path], wanted: Wanted) -> Found:
    samples = index_shard(shards[0]).samples
    first = samples[0].members if samples else {}
    data: dict[str, Any] = {"source": "shards", "shards": _pattern(spot, shards)}
    json_texts = ".json" in first and "caption" in _keys(first[".json"])
    texts = ".txt" in first or json_texts
    if ".cls" in first and not (wanted.task == "captions" and texts):
        data["task"] = "classification"
        places = (shards[0].parent / "classnames.txt", shards[0].parents[1] / "classnames.txt")
        names_file = next((path for path in places if path.is_file()), None)
        if names_file is None:
            raise UsageError(
                f"{shards[0]} has class numbers (.cls) without names: put them into "
                f"{places[0]}, one a line, or copy `radapter recipes copy own-data` and list them "
                "in data.class_names."
            )
        text = names_file.read_text(encoding="utf-8").rstrip()
        data["class_names"] = [line.strip() for line in text.splitlines()]
    else:
        data["task"] = "captions"
        if ".txt" not in first and json_texts:
            data["captions_in"] = ".json:caption"
    return Found(f"{len(shards)} WebDataset shard{'s' * (len(shards) > 1)}", data)


def _keys(member: Member) -> list[str]:
    """The keys of the JSON object in a member; empty if it is not one."""
    try:
        return list(json.loads(member.read()))
    except (ValueError, TypeError):
        return []


def _pattern(spot: Spot, shards: list[Path]) -> str:
    names = brace([path.name for path in shards])
    return names if spot.written == "." else f"{spot.written}/{names}"


def brace(names: list[str]) -> str:
    """One pattern for all of some names: a range of numbers where they are one."""
    if len(names) == 1:
        return names[0]
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    parts = [match.groups() for match in found if match]
    if len(parts) == len(names) and len({(begin, end) for begin, _, end in parts}) == 1:
        begin, _, end = parts[0]
        numbers = sorted((number for _, number, _ in parts), key=int)
        pattern = f"{begin}{{{numbers[0]}..{numbers[-1]}}}{end}"
        if sorted(braceexpand(pattern)) == sorted(names):
            return pattern
    return "{" + ",".join(names) + "}"
