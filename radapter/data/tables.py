"""CSV and TSV tables: a picture and a text in each row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radapter.data.class_names import gathered, joined_notes
from radapter.data.dataset import (
    Dataset,
    Files,
    MissingData,
    check_broken,
)
from radapter.data.pixels import reading_of
from radapter.errors import BrokenInput, nearest
from radapter.recipe_data import TableData, located


def open_table(settings: TableData) -> Dataset:
    """Rows of one picture are gathered; for classification the text is the class name.

    Raises:
        BrokenInput: no table, a column that is not there, or more broken rows than allowed.
    """
    path = located(settings, settings.path)
    if not path.is_file():
        raise MissingData(f"No such table: {path}.")
    root = located(settings, settings.root) if settings.root else path.parent
    texts, group_of, broken = gather(path, settings)
    check_broken(broken, settings.broken_rows, "data.broken_rows")
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
        class_names, numbers = gathered(spelled)
        number = dict(zip(spelled, numbers, strict=True))
        labels = [number[texts[key][0]] for key in keys]
        notes = joined_notes(spelled, numbers)
    files = Files(root, keys, reading_of(settings))
    return Dataset(
        source=f"table {path}",
        keys=keys,
        read=files.read,
        labels=labels,
        class_names=class_names,
        captions=[texts[key] for key in keys],
        groups=[groups[group_of[key]] for key in keys],
        group_names=[group_of[key] for key in keys],
        stamp=files.stamp,
        left_out={"broken row": broken} if broken else {},
        notes=notes,
    )


def gather(
    path: Path, settings: TableData
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """The texts and the group of each picture, and a message for each broken row."""
    texts: dict[str, list[str]] = {}
    group_of: dict[str, str] = {}
    broken: list[str] = []
    columns = [settings.image_column, settings.text_column]
    columns += [settings.group_column] if settings.group_column else []
    for line, row, more in read_rows(path, settings.delimiter, columns):
        cells = [row[column] for column in columns]
        if any(cell is None or not cell.strip() for cell in cells):
            broken.append(f"{path}:{line}: a needed cell is empty.")
            continue
        if any(more):
            broken.append(f"{path}:{line}: more cells than columns: are quotes missing?")
            continue
        texts.setdefault(cells[0], []).append(cells[1].strip())
        group_of.setdefault(cells[0], cells[2] if settings.group_column else cells[0])
    return texts, group_of, broken


def read_rows(
    path: Path, delimiter: str | None, columns: list[str]
) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """(line, {column: cell}, cells beyond the columns) of every row; a missing cell is None.

    Raises:
        BrokenInput: the file is no table or lacks one of the columns.
    """
    if delimiter is None:
        delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    # Tables with this separator are written without quotes, and with spaces for the eye.
    plain = delimiter == "|"
    quoting: Any = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, delimiter=delimiter, strict=True, quoting=quoting)
            if plain:
                rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
            have = list(rows.fieldnames or [])
            for column in columns:
                if column not in have:
                    raise BrokenInput(f"{path} has no column '{column}'.{nearest(column, have)}")
            for row in rows:
                more: Any = row.pop(rows.restkey, [])
                if plain:
                    row = {key: cell and cell.strip() for key, cell in row.items()}
                yield rows.line_num, row, more
    except (csv.Error, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path} is no readable table: {error}") from None
