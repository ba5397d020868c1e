"""What a folder or file holds: the data section of a recipe for it, by what lies there."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from radapter.data.listing import class_folders
from radapter.data.opening import DataSource
from radapter.data.settings import Data, located
from radapter.data.sources.clip_benchmark import ClipBenchmarkData
from radapter.data.sources.huggingface import SAVED
from radapter.errors import BrokenInput, UsageError
from radapter.init.captions import captions_file, captions_folder
from radapter.init.folders import EXPECTED, folder_of_pictures, has_items
from radapter.init.found import Found, Spot, Task, Wanted
from radapter.init.hugging_face import holds_pictures, set_of_files
from radapter.init.shards import has_words, is_shard, refuse_compressed, shard, shards_in
from radapter.init.splits import Doubt, choose, like_splits, sort
from radapter.init.tables import ENDINGS, is_table, table
from radapter.init.videos import class_folders_of_clips, holds_clips


def look(
    path: str, pictures: str | None = None, split: str | None = None, task: Task | None = None
) -> Found:
    """Recognise what lies at a path.

    Args:
        path: a folder or file; relative ones start from the data root, as in a recipe.
        pictures: the folder that a table or caption file names pictures in, if it is elsewhere.
        split: the split to train on; "none": what looks like splits is none.
        task: what to train on, where a set has both classes and captions.

    Raises:
        BrokenInput: there is nothing at the path, or it is damaged.
        UsageError: nothing that radapter reads was recognised, or there are two readings.
    """
    spot = _spot(path)
    wanted = Wanted(None if pictures is None else _spot(pictures), split, task)
    found = _file(spot, wanted) if spot.path.is_file() else _folder(spot, wanted)
    settings: Any = TypeAdapter(DataSource).validate_python(found.data)
    if pictures is not None and not (settings.pictures_elsewhere and found.data.get("path")):
        raise UsageError(f"--pictures goes with a table or a caption file, and {path} is neither.")
    if task not in (None, settings.task):
        lacks = "no classes" if task == "classification" else "no captions"
        raise UsageError(f"--task {task}: {path} is {found.what} with {lacks}.")
    return found


def _spot(path: str) -> Spot:
    place = located(Data(), path)
    if not place.exists() and Path(path).exists():  # there is a data root, the path is elsewhere
        place = Path(path).resolve()
        path = str(place)
    if not place.exists():
        raise BrokenInput(f"No such file or folder: {place}.")
    return Spot(Path(path).as_posix(), place)


def _file(spot: Spot, wanted: Wanted) -> Found:
    refuse_compressed(spot.path)
    ending = spot.path.suffix.lower()
    if ending == ".json" and not is_table(spot.path):
        return captions_file(spot, wanted)
    if is_shard(spot.path):
        return shard(spot, wanted)
    if ending in ENDINGS:
        return table(spot, wanted)
    raise UsageError(f"{spot.path} is not data in a known form: {EXPECTED}")


def _folder(spot: Spot, wanted: Wanted) -> Found:
    if (spot.path / "nshards.txt").is_file():
        return _clip_benchmark(spot.above, [spot.path.name], Wanted(split=spot.path.name))
    splits = sorted(p.parent.name for p in spot.path.glob("*/nshards.txt"))
    if splits:
        return _clip_benchmark(spot, splits, wanted)
    if any((spot.path / name).is_file() for name in SAVED) or holds_pictures(spot.path):
        return set_of_files(spot, wanted)
    return captions_folder(spot, wanted) or _inside(spot, wanted)


def _in_split_folders(spot: Spot, wanted: Wanted) -> Found | None:
    """A folder for each split, all of one form; None: the folders are no splits."""
    names = [name for name in class_folders(spot.path) if _holds_something(spot.path / name)]
    if not sort(names).named and wanted.split not in names:
        if wanted.split is None:
            _ask_if_like_splits(spot, names)
        return None
    chosen = choose(names, wanted.split, str(spot.path), "folders")
    if chosen is None:
        return None
    # The answer about splits was about these folders: below them nothing is asked again.
    inner = dataclasses.replace(wanted, split=wanted.split and "none")
    found = _inside(spot.below(chosen.train), inner)
    found.notes = chosen.notes + found.notes
    for name in sort(chosen.left).test:
        place = shlex.quote(spot.below(name).written)
        found.notes.append(f"for a last look at {name}: radapter eval --data {place}")
    found.chosen = chosen
    if chosen.validation:
        validation = _inside(spot.below(chosen.validation), inner)
        same = ("source", "task")
        if [found.data.get(k) for k in same] != [validation.data.get(k) for k in same]:
            raise UsageError(
                f"{spot.path} has {found.what} in {chosen.train} and {validation.what} in "
                f"{chosen.validation}: both splits have to be of one form."
            )
        found.validation = validation.data
    return found


def _ask_if_like_splits(spot: Spot, names: list[str]) -> None:
    """Raises Doubt for folders such as xtrain and xtest, which may be classes or splits: where they
    say several splits, or one of them has folders of pictures of its own."""
    like = like_splits(names)
    folders = {name: class_folders(spot.path / name) for name in like}
    inside = [n for n in like if any(has_items(spot.path / n / f) for f in folders[n])]
    if len(set(like.values())) > 1 or inside:
        first = min(inside or like, key=lambda name: like[name] != "train")
        raise Doubt(
            f"{spot.path} has folders whose names may say splits or classes: "
            f"{', '.join(list(like)[:5])}. Say which: --split {shlex.quote(first)} trains on that "
            "one and leaves the others alone; --split none takes each folder as a class."
        )


def _inside(spot: Spot, wanted: Wanted) -> Found:
    """What lies in a folder: shards, tables, folders of splits, pictures. Tables come before
    folders, as they may name pictures in folders called like splits."""
    files = sorted(p for p in spot.path.iterdir() if p.is_file() and not p.name.startswith("."))
    shards = [path for path in files if is_shard(path)]
    # An archive of the pictures that lie beside it, unpacked, says nothing of its own.
    if shards and not (class_folders(spot.path) and not has_words(shards[0])):
        return shards_in(spot, shards, wanted)
    tables = _tables(spot.path)
    if not tables:
        for path in files:
            refuse_compressed(path)
        return _in_split_folders(spot, wanted) or _class_folders(spot, wanted)
    try:
        return _table(spot, tables, wanted)
    except Doubt:
        raise
    except (UsageError, BrokenInput) as error:
        try:
            found = _in_split_folders(spot, wanted) or _class_folders(spot, wanted)
        except Doubt:
            raise
        except (UsageError, BrokenInput):
            raise error from None
        found.notes.append(f"not used: {', '.join(tables[:3])}. {error}")
        return found


def _class_folders(spot: Spot, wanted: Wanted) -> Found:
    """Of clips or of pictures; or pictures with their captions beside them."""
    if holds_clips(spot.path):
        return class_folders_of_clips(spot, wanted)
    return folder_of_pictures(spot, wanted)


def _table(spot: Spot, names: list[str], wanted: Wanted) -> Found:
    """The one table, or those of the splits."""
    chosen = None
    if sort(names).named:
        chosen = choose(names, wanted.split, str(spot.path), "tables")
        wanted = dataclasses.replace(wanted, split=None)
    if chosen is None:
        if len(names) > 1:
            some = ", ".join(names[:5])
            raise UsageError(f"{spot.path} has several tables: name one of them ({some}).")
        return table(spot.below(names[0]), wanted)
    found = table(spot.below(chosen.train), wanted)
    return found.choose(chosen, lambda name: table(spot.below(name), wanted).data)


def _tables(folder: Path) -> list[str]:
    """Tables of pictures; the answer form of a competition does not count."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and is_table(path))
    return [name for name in names if "submission" not in name.lower()]


def _holds_something(folder: Path) -> bool:
    return any(map(is_shard, folder.iterdir())) or bool(_tables(folder)) or has_items(folder)


# ---------------------------------------------------------------- clip-benchmark


def _clip_benchmark(spot: Spot, splits: list[str], wanted: Wanted) -> Found:
    kind = spot.path / "dataset_type.txt"
    retrieval = kind.is_file() and kind.read_text(encoding="utf-8").strip().lower() == "retrieval"
    chosen = choose(splits, wanted.split, str(spot.path), "splits")
    if chosen is None:
        some = ", ".join(splits[:5])
        raise UsageError(f"{spot.path} has the splits {some}: say which to train on, by --split.")
    data: dict[str, Any] = {
        "source": "clip-benchmark",
        "root": spot.written,
        "dataset_split": chosen.train,
        "task": "captions" if retrieval else "classification",
    }
    found = Found("shards in clip-benchmark's layout", data)
    found.choose(chosen, lambda name: {"dataset_split": name})
    if sort([chosen.train]).test:
        found.notes.append(f"once trained on, {chosen.train} is no test any more.")
    if not retrieval:
        own = ClipBenchmarkData(source="clip-benchmark", root=spot.written).own_prompts()
        if own is not None:
            data["templates"] = own
    return found
