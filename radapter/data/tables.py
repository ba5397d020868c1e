"""Tables of pictures: a picture and a text, or several, in each row."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from radapter.data.class_names import gathered, joined_notes
from radapter.data.dataset import Dataset, Files, MissingData, check_broken
from radapter.data.names_file import called
from radapter.data.pixels import reading_of
from radapter.data.table_rows import read_rows
from radapter.errors import BrokenInput
from radapter.recipe_data import TableData, located


@dataclass(frozen=True)
class Gathered:
    """What a table says, by picture."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """A message for each broken row"""


def open_table(settings: TableData) -> Dataset:
    """Rows of one picture are gathered; for classification the text is the class name.

    Raises:
        BrokenInput: no table, a column that is not there, or more broken rows than allowed.
    """
    path = located(settings, settings.path)
    if not path.is_file():
        raise MissingData(f"No such table: {path}.")
    root = located(settings, settings.root) if settings.root else path.parent
    table = gather(path, settings)
    check_broken(table.broken, settings.broken_rows, "data.broken_rows")
    texts, group_of = table.texts, table.group_of
    keys = list(texts)
    groups = {name: number for number, name in enumerate(dict.fromkeys(group_of.values()))}
    labels: list[int] = []
    class_names: list[str] = []
    notes: list[str] = []
    if settings.task == "classification":
        ambiguous = next((key for key in keys if len(set(texts[key])) > 1), None)
        if ambiguous:
            raise BrokenInput(
                f"{path}: {ambiguous} has several classes. Classification takes one a picture."
            )
        spelled = sorted({texts[key][0] for key in keys})
        names = spelled
        if settings.class_names_in:
            file = located(settings, settings.class_names_in)
            names = called(spelled, file)
        class_names, numbers = gathered(names)
        number = dict(zip(spelled, numbers, strict=True))
        labels = [number[texts[key][0]] for key in keys]
        notes = joined_notes(spelled, numbers)
    files = Files(root, [picture_path(root, key, settings) for key in keys], reading_of(settings))
    return Dataset(
        source=f"table {path}" + (f", {settings.dataset_split}" if settings.dataset_split else ""),
        keys=keys,
        read=files.read,
        labels=labels,
        class_names=class_names,
        captions=[texts[key] for key in keys],
        groups=[groups[group_of[key]] for key in keys],
        group_names=[group_of[key] for key in keys],
        stamp=files.stamp,
        digest=files.digest,
        left_out={"broken row": table.broken} if table.broken else {},
        notes=notes,
    )


def gather(path: Path, settings: TableData) -> Gathered:
    """The texts and the group of each picture of the split that the settings name.

    Raises:
        BrokenInput: the file is no table, or lacks a column.
    """
    table = Gathered()
    root = located(settings, settings.root) if settings.root else path.parent
    first: dict[str, str] = {}
    """What a path was called where it stood first: `1.png` and `./1.png` are one picture"""
    of_text = text_columns(settings)
    columns = [settings.image_column, *of_text]
    columns += [c for c in (settings.group_column, settings.split_column) if c]
    for row in read_rows(path, settings, columns):
        if row.broken:
            table.broken.append(row.broken)
            continue
        if settings.split_column and _cell(row.cells, settings.split_column) not in (
            settings.dataset_split,
            "",  # a row without a split is broken, as one without a text is
        ):
            continue
        picture = row.cells.get(settings.image_column)
        texts = [text for c in of_text for text in _texts(row.cells.get(c), settings.text_lists)]
        needed = [c for c in (settings.group_column, settings.split_column) if c]
        empty = not picture or not str(picture).strip() or not texts
        if empty or any(not _cell(row.cells, column) for column in needed):
            table.broken.append(f"{path}:{row.line}: a needed cell is empty.")
            continue
        if isinstance(picture, dict):
            raise BrokenInput(
                f"{path}: column '{settings.image_column}' holds pictures and no paths: use "
                "`source: huggingface` with the folder of the file."
            )
        key = str(picture)
        key = first.setdefault(os.path.normpath(picture_path(root, key, settings)), key)
        table.texts.setdefault(key, []).extend(texts)
        group = row.cells[settings.group_column] if settings.group_column else key
        table.group_of.setdefault(key, str(group))
    return table


def text_columns(settings: TableData) -> list[str]:
    columns = settings.text_column
    return [columns] if isinstance(columns, str) else list(columns)


def picture_path(root: Path, cell: str, settings: TableData) -> str:
    """The path that a cell means: file:// and backslashes are other ways to write one."""
    if cell.startswith("file://"):
        cell = unquote(urlsplit(cell).path)
    cell += settings.image_ending
    if "\\" in cell and not (root / cell).exists():
        cell = cell.replace("\\", "/")
    return cell


def _cell(cells: dict[str, Any], column: str) -> str:
    value = cells.get(column)
    return "" if value is None else str(value).strip()


def _texts(value: Any, lists: bool) -> list[str]:
    """The texts in a cell; numbers are texts too, as class numbers are."""
    if lists and isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    values = value if isinstance(value, list) else [value]
    return [text for v in values if v is not None and (text := str(v).strip())]
