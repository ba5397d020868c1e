"""The rows of a table in a file: CSV and its kin, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radapter.data.pixels import is_picture
from radapter.errors import BrokenInput, nearest, not_installed

SEPARATED = (".csv", ".tsv", ".tab")
DELIMITED = (*SEPARATED, ".txt")
JSON_LINES = (".jsonl", ".ndjson")
ENDINGS = (*DELIMITED, *JSON_LINES, ".json", ".parquet")
csv.field_size_limit(2**31 - 1)  # a cell may be long: alt texts of the web are


@dataclass(frozen=True)
class Form:
    """Settings of the source `table` by which a file is read."""

    image_column: str = ""
    columns: list[str] | None = None
    delimiter: str | None = None
    quoting: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table: where it stands, and its cells."""

    line: int
    """In the file, from 1; in Parquet the number of the row"""
    cells: dict[str, Any] = field(default_factory=dict)
    """By column: a text, a number, a list of them; None if the row has none"""
    broken: str | None = None
    """What is wrong with it"""


def read_rows(path: Path, form: Form, columns: list[str]) -> Iterator[Row]:
    """Every row of a table.

    Args:
        columns: those that are needed.

    Raises:
        BrokenInput: the file is no table, lacks one of the columns, or its quotes go wrong.
    """
    ending = path.suffix.lower()
    try:
        if ending in JSON_LINES:
            rows = _json_lines(path)
        elif ending == ".json":
            rows = _json(path)
        elif ending == ".parquet":
            rows = _parquet(path, columns)
        else:
            rows = _delimited(path, form, columns)
        seen: dict[str, None] = {}
        some = False
        for row in rows:
            seen |= dict.fromkeys(row.cells)
            some = some or not row.broken
            yield row
    except UnicodeDecodeError as error:
        raise BrokenInput(f"{path} is not a readable table: {error}") from None
    if some and ending not in DELIMITED:
        check_columns(path, columns, list(seen))


def rows_of_split(rows: Iterator[Row], column: str | None, split: str | None) -> Iterator[Row]:
    """The rows of a split; broken ones, and those that name no split, stay and are named by who
    reads them. Without a column: all."""
    for row in rows:
        if column is None or row.broken or cell_of(row, column) in (split, ""):
            yield row


def cell_of(row: Row, column: str) -> str:
    """The text of a cell; empty, if there is none."""
    value = row.cells.get(column)
    return "" if value is None else str(value).strip()


def texts_of(value: Any, lists: bool = False) -> list[str]:
    """The texts in a cell; numbers are texts too, as class numbers are.

    Args:
        lists: whether the cell is a JSON list of them.
    """
    if lists and isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    values = value if isinstance(value, list) else [value]
    return [text for v in values if v is not None and (text := str(v).strip())]


def check_columns(path: Path, columns: list[str], have: list[str]) -> None:
    """Raises BrokenInput if one of the columns is not there."""
    for column in columns:
        if column not in have:
            raise BrokenInput(f"{path} has no column '{column}'.{nearest(column, have)}")


def delimiter_of(path: Path, form: Form) -> str:
    """What stands between the cells: what the recipe says, else by the file's ending."""
    if form.delimiter is not None:
        return form.delimiter
    return "\t" if path.suffix.lower() in (".tsv", ".tab") else ","


def _delimited(path: Path, form: Form, columns: list[str]) -> Iterator[Row]:
    delimiter = delimiter_of(path, form)
    # Tables with pipes are written without quotes, and with spaces for the eye.
    bare = form.quoting == "none" or (form.quoting is None and delimiter == "|")
    quoting: Any = csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True, quoting=quoting)
        header = form.columns or []
        while not header:
            try:
                header = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise BrokenInput(f"{path}:{reader.line_num}: not a table: {error}.") from None
        if delimiter == "|":
            header = [name.strip() for name in header]
        check_columns(path, columns, header)
        image = header.index(form.image_column) if form.image_column in header else None
        shapes: set[str] = set()
        while True:
            begin = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):
                    raise BrokenInput(_unquoted(path, begin, reader.line_num)) from None
                for line in range(begin, reader.line_num + 1):
                    yield Row(line, broken=f"{path}:{line}: {error}.")
                continue
            if not cells:
                continue
            if image is not None and image < len(cells):
                shapes.add(_shape(cells[image]))
            if any("\n" in c and _holds_rows(c, delimiter, header, image, shapes) for c in cells):
                raise BrokenInput(_unquoted(path, begin, reader.line_num))
            if delimiter == "|":
                cells = [cell.strip() for cell in cells]
            line = reader.line_num
            if any(cells[len(header) :]):
                hint = "more cells than columns: are quotes missing?"
                yield Row(line, broken=f"{path}:{line}: {hint}")
                continue
            yield Row(line, dict(zip(header, cells + [None] * len(header), strict=False)))


def _shape(cell: str) -> str:
    """Equal for ids that differ in their numbers alone."""
    return re.sub(r"\d+", "0", cell.strip())


def _holds_rows(
    cell: str, delimiter: str, header: list[str], image: int | None, shapes: set[str]
) -> bool:
    """Whether a cell with line breaks holds whole rows, which a stray quote has swallowed.

    Args:
        image: which column names the picture.
        shapes: of what stands in that column up to here.
    """
    for inner in cell.splitlines()[1:]:
        parts = inner.split(delimiter)
        if len(header) > 1 and len(parts) == len(header):
            name = "" if image is None else parts[image].strip()
            named = is_picture(name) or (any(map(str.isdigit, name)) and _shape(name) in shapes)
            if delimiter == "\t" or named:
                return True
    return False


def _unquoted(path: Path, begin: int, end: int) -> str:
    return (
        f"{path}:{begin}: a quote opens here and does not close before line {end}. Close "
        "it; or, if quotes are plain characters in this table, set data.quoting: none."
    )


def _json_lines(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                cells = json.loads(text)
            except ValueError as error:
                yield Row(line, broken=f"{path}:{line}: no JSON: {error}.")
                continue
            yield _record(path, line, cells)


def _json(path: Path) -> Iterator[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise BrokenInput(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, list):
        raise BrokenInput(f"{path} is not a list of records.")
    for number, cells in enumerate(content, 1):
        yield _record(path, number, cells)


def _record(path: Path, line: int, cells: Any) -> Row:
    if isinstance(cells, dict):
        return Row(line, cells)
    return Row(line, broken=f"{path}:{line}: no record with names: {str(cells)[:50]}")


def _parquet(path: Path, columns: list[str]) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise not_installed(str(path), "pyarrow", "hf") from None
    try:
        file = parquet.ParquetFile(path)
        check_columns(path, columns, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(columns=columns or None):
            for cells in batch.to_pylist():
                number += 1
                yield Row(number, cells)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise BrokenInput(f"{path} is not readable Parquet: {error}") from None
