"""Sets of Hugging Face `datasets`: saved ones, and folders of Parquet files with pictures in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from radapter.data.sources.huggingface import SAVED, as_pictures, package
from radapter.errors import BrokenInput, UsageError, not_installed
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import choose
from radapter.init.tables import CAPTION_COLUMNS


def holds_pictures(folder: Path) -> bool:
    """Whether there are Parquet files with pictures in them, in a folder or its `data`.

    Raises:
        MissingDependency: there are Parquet files alone, and pyarrow is not installed.
    """
    files = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    if not files:
        return False
    try:
        from pyarrow import parquet, types
    except ImportError:
        if any(folder.glob("*.tar")) or len(files) != len(list(folder.rglob("*.*"))):
            return False
        raise not_installed(str(files[0]), "pyarrow", "hf") from None
    try:
        schema = parquet.read_schema(files[0])
    except (OSError, ValueError) as error:
        raise BrokenInput(f"{files[0]} is not readable Parquet: {error}") from None
    return any(types.is_struct(f.type) or types.is_binary(f.type) for f in schema)


def set_of_files(spot: Spot, wanted: Wanted) -> Found:
    """Its columns by their types."""
    datasets = package()
    saved = any((spot.path / name).is_file() for name in SAVED)
    try:
        load = datasets.load_from_disk if saved else datasets.load_dataset
        loaded = load(str(spot.path))
    except Exception as error:  # of many kinds
        raise BrokenInput(f"{spot.path} cannot be loaded: {error}") from None
    data: dict[str, Any] = {"source": "huggingface", "path": spot.written}
    kind = "saved by Hugging Face datasets" if saved else "in Parquet files"
    found = Found(f"a set {kind}", data)
    rows = loaded
    if isinstance(loaded, datasets.DatasetDict):
        names = list(loaded)
        chosen = choose(names, wanted.split, str(spot.path), "splits")
        if chosen is None and len(names) > 1:
            some = ", ".join(names[:5])
            raise UsageError(f"{spot.path} has the splits {some}: say which one, by --split.")
        data["dataset_split"] = chosen.train if chosen else names[0]
        rows = loaded[data["dataset_split"]]
        if chosen:
            found.choose(chosen, lambda name: {"dataset_split": name})
    _columns(datasets, rows, spot, wanted, data)
    return found


def _columns(datasets: Any, rows: Any, spot: Spot, wanted: Wanted, data: dict[str, Any]) -> None:
    kinds: dict[str, list[str]] = {"image": [], "class": [], "text": []}
    for column, feature in rows.features.items():
        if as_pictures(datasets, feature):
            kinds["image"].append(column)
        elif isinstance(feature, datasets.ClassLabel):
            kinds["class"].append(column)
        elif "string" in (  # a text, or a list of texts
            str(getattr(f, "dtype", "")) for f in (feature, getattr(feature, "feature", None))
        ):
            kinds["text"].append(column)
    texts = [c for c in kinds["text"] if c.lower().rstrip("s") in CAPTION_COLUMNS] or kinds["text"]
    if not kinds["image"] or not (kinds["class"] or texts):
        raise UsageError(f"{spot.path} has no pictures with classes or texts: {rows.features}.")
    data["image_column"] = kinds["image"][0]
    if kinds["class"] and not (wanted.task == "captions" and texts):
        data |= {"label_column": kinds["class"][0], "task": "classification"}
    elif wanted.task == "classification":
        data |= {"label_column": texts[0], "task": "classification"}
    else:
        data |= {"text_column": texts[0], "task": "captions"}
