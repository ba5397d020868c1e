"""Tables of pictures: a picture and a text, or several, in each row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator

from radapter.data.class_names import classes_listed
from radapter.data.dataset import Dataset, check_broken
from radapter.data.names_file import names_for
from radapter.data.settings import HeldOut, Listing, MissingData, located
from radapter.data.stores import Files
from radapter.data.table_rows import Form, cell_of, read_rows, rows_of_split, texts_of
from radapter.errors import BrokenInput


@dataclass(frozen=True)
class Gathered:
    """What a table says, by picture."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """A message for each broken row"""


class TableData(HeldOut):
    """A table with a picture and a text (a caption or a class name) in each row: CSV, TSV, JSON
    lines, a JSON list of records, or Parquet (extra `hf`)."""

    source: Literal["table"]
    named_by = ("path", "root", "dataset_split")
    path: Annotated[str, Field(examples=["pictures.csv"])]
    """The table."""
    root: str = ""
    """The folder that the paths of pictures start from. Empty: the table's own folder."""
    image_column: str = "filepath"
    """The column of the pictures' paths."""
    image_ending: str = ""
    """What is added to each cell to make it the name of a file, such as ".jpg" for the ids in
    Kaggle's tables."""
    text_column: str | Annotated[list[str], Field(min_length=1)] = Field(
        default="title", examples=["label"]
    )
    """The column of the captions or class names. A list of columns: each has a caption of the
    picture."""
    text_lists: bool = False
    """Whether a cell of text is a JSON list of captions, such as ["a dog", "a brown dog"]."""
    group_column: str | None = None
    """Rows with the same value in this column are positives of each other. `null`: rows of the same
    picture are."""
    split_column: str | None = None
    """The column that says which split a row belongs to. `null`: the table has no splits."""
    dataset_split: str | None = None
    """Take only the rows with this value in `split_column`. It is needed with that key."""
    columns: list[str] | None = None
    """The names of the columns, if the table's first line does not have them. `null`: it has."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates cells. `null`: a tab in `.tsv` and `.tab`, else a comma. With `|`, spaces
    around a cell do not count, as in Kaggle's results.csv of Flickr30K."""
    quoting: Literal["usual", "none"] | None = None
    """What quotes mean. `usual`: a cell in quotes may hold separators and line breaks. `none`: they
    are letters like any other. `null`: `none` if the delimiter is `|`, else `usual`."""
    class_names_in: str | None = None
    """A file with the names of class numbers or ids, as for the source `folder`. `null`: the text
    is the class name."""
    broken_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows without a picture or a text are skipped and named; one more is an error."""

    @model_validator(mode="after")
    def _splits_and_columns(self) -> TableData:
        if (self.split_column is None) != (self.dataset_split is None):
            raise ValueError("split_column and dataset_split go together: give both, or neither")
        if self.task == "classification" and not isinstance(self.text_column, str):
            raise ValueError("several text columns are captions: name one, or set task: captions")
        return self

    pictures_elsewhere = True

    def form(self) -> Form:
        """How the file is to be read."""
        return Form(self.image_column, self.columns, self.delimiter, self.quoting)

    def listing(self) -> Listing:
        return Listing(self._listed, self._rows, self._captions)

    def _listed(self, path: str) -> TableData:
        """With JSON lines in the place of the table; pictures lie where they do."""
        named = self.text_column if isinstance(self.text_column, str) else self.text_column[0]
        root = located(self, self.root) if self.root else located(self, self.path).parent
        plain = ("text_lists", "split_column", "dataset_split", "columns", "delimiter", "quoting")
        update = {key: type(self).model_fields[key].default for key in plain}
        update |= {"path": path, "root": str(root.absolute()), "text_column": named}
        return self.model_copy(update=update)

    def _rows(self, dataset: Dataset) -> Callable[[int, str], dict[str, Any]]:
        """The picture, the caption and, where the table has groups, the group."""
        names = self._listed("")

        def row(place: int, text: str) -> dict[str, Any]:
            found = {names.image_column: dataset.keys[place], str(names.text_column): text}
            own = dataset.group_names[place]
            return found | ({self.group_column: own} if self.group_column else {})

        return row

    def _captions(self, path: Path) -> dict[str, list[str]]:
        """By picture its texts in another table with the same columns; it needs no groups."""
        found = gather(path, self._listed(str(path)).model_copy(update={"group_column": None}))
        check_broken(found.broken, self.broken_rows, f"{path}: data.broken_rows")
        return found.texts

    def in_words(self) -> str:
        return f"table {Path(self.path).name}"

    def open_pictures(self) -> Dataset:
        """The pictures of the rows; the table needs no column of texts."""
        alone = {"task": "captions", "text_column": self.image_column, "text_lists": False}
        return self.model_copy(update=alone).open()

    def open(self) -> Dataset:
        """Rows of one picture are gathered; for classification the text is the class name."""
        path = located(self, self.path)
        if not path.is_file():
            raise MissingData(f"No such table: {path}. Correct data.path, or give --data-root.")
        root = located(self, self.root) if self.root else path.parent
        table = gather(path, self)
        check_broken(table.broken, self.broken_rows, "data.broken_rows")
        texts, group_of = table.texts, table.group_of
        keys = list(texts)
        groups = {name: number for number, name in enumerate(dict.fromkeys(group_of.values()))}
        labels: list[int] = []
        class_names: list[str] = []
        notes: list[str] = []
        if self.task == "classification":
            names: Callable[[Sequence[str]], list[str]] = list
            if self.class_names_in:
                names = partial(names_for, path=located(self, self.class_names_in))
            labels, class_names, notes = classes_listed(texts, path, "picture", names)
        files = Files(root, [picture_path(root, key, self) for key in keys], self.reading())
        return Dataset(
            source=f"table {path}" + (f", {self.dataset_split}" if self.dataset_split else ""),
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
    named = settings.text_column
    of_text = [named] if isinstance(named, str) else named
    needed = [c for c in (settings.group_column, settings.split_column) if c]
    rows = read_rows(path, settings.form(), [settings.image_column, *of_text, *needed])
    for row in rows_of_split(rows, settings.split_column, settings.dataset_split):
        if row.broken:
            table.broken.append(row.broken)
            continue
        picture = row.cells.get(settings.image_column)
        texts = [text for c in of_text for text in texts_of(row.cells.get(c), settings.text_lists)]
        empty = not picture or not str(picture).strip() or not texts
        if empty or any(not cell_of(row, column) for column in needed):
            table.broken.append(f"{path}:{row.line}: a needed cell is empty.")
            continue
        if isinstance(picture, dict):
            raise BrokenInput(
                f"{path}: column '{settings.image_column}' holds pictures, not paths: use "
                "`source: huggingface` with the folder of the file."
            )
        key = str(picture)
        key = first.setdefault(os.path.normpath(picture_path(root, key, settings)), key)
        table.texts.setdefault(key, []).extend(texts)
        group = row.cells[settings.group_column] if settings.group_column else key
        table.group_of.setdefault(key, str(group))
    return table


def picture_path(root: Path, cell: str, settings: TableData) -> str:
    """The path that a cell means: file:// and backslashes are other ways to write one."""
    if cell.startswith("file://"):
        cell = unquote(urlsplit(cell).path)
    cell += settings.image_ending
    if "\\" in cell and not (root / cell).exists():
        cell = cell.replace("\\", "/")
    return cell
