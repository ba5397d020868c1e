"""CSV and TSV tables: a picture and a text in each row."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from PIL import Image

from radapter.data.dataset import Dataset, MissingData, located, read_picture
from radapter.errors import BrokenInput, nearest
from radapter.recipe_data import TableData


def open_table(settings: TableData) -> Dataset:
    """Rows of one picture are gathered; for classification the text is the class name.

    The separator is a tab for `.tsv` and `.tab`, else a comma.
    """
    path = located(settings, settings.path)
    if not path.is_file():
        raise MissingData(f"No such table: {path}.")
    root = located(settings, settings.root) if settings.root else path.parent
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            columns = [settings.image_column, settings.text_column]
            columns += [settings.group_column] if settings.group_column else []
            for column in columns:
                if column not in (rows.fieldnames or []):
                    have = list(rows.fieldnames or [])
                    raise BrokenInput(f"{path} has no column '{column}'.{nearest(column, have)}")
            texts: dict[str, list[str]] = {}
            group_of: dict[str, str] = {}
            for row in rows:
                cells = [row[column] for column in columns]
                if any(cell is None or not cell.strip() for cell in cells):
                    raise BrokenInput(f"{path}:{rows.line_num}: a needed cell is empty.")
                texts.setdefault(cells[0], []).append(cells[1].strip())
                group_of.setdefault(cells[0], cells[2] if settings.group_column else cells[0])
    except (csv.Error, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path} is no readable table: {error}") from None
    keys = list(texts)
    groups = {name: number for number, name in enumerate(dict.fromkeys(group_of.values()))}
    labels: list[int] = []
    class_names: list[str] = []
    if settings.task == "classification":
        ambiguous = next((key for key in keys if len(set(texts[key])) > 1), None)
        if ambiguous:
            raise BrokenInput(
                f"{path}: {ambiguous} has several classes. Classification takes one a picture."
            )
        class_names = sorted({texts[key][0] for key in keys})
        number = {name: i for i, name in enumerate(class_names)}
        labels = [number[texts[key][0]] for key in keys]
    return Dataset(
        source=f"table {path}",
        keys=keys,
        read=functools.partial(_read, root, keys),
        labels=labels,
        class_names=class_names,
        captions=[texts[key] for key in keys],
        groups=[groups[group_of[key]] for key in keys],
        group_names=[group_of[key] for key in keys],
    )


def _read(root: Path, keys: list[str], index: int) -> Image.Image:
    return read_picture(root / keys[index])
