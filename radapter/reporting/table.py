"""A table as data: for a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

GROUP = "italic"
"""The style of a row that is the heading of those below it"""


class Styled(NamedTuple):
    """A cell or line with a style of rich's."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """A column of a table: its title, and how its cells are set."""

    title: str
    left: bool = False
    wrap: Literal["words", "letters", "never"] = "words"
    """Where a terminal is too narrow"""


@dataclass
class Table:
    """Rows of cells under columns; a title above and notes below."""

    columns: Sequence[Column]
    rows: list[tuple[tuple[str | Styled, ...], str]] = field(default_factory=list)
    """Cells and the style of the row"""
    title: str = ""
    notes: list[Styled] = field(default_factory=list)
    """Lines"""

    def add(self, *cells: str | Styled, style: str = "") -> None:
        self.rows.append((cells, style))

    def note(self, text: str, style: str = "dim") -> None:
        self.notes.append(Styled(text, style))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Title, table and notes; without rows no table."""
        if self.title:
            yield Text(self.title, style="bold")
        if self.rows:
            table = rich_table.Table(box=None, pad_edge=False, header_style="bold")
            for column in self.columns:
                table.add_column(
                    Text(column.title),
                    justify="left" if column.left else "right",
                    no_wrap=column.wrap == "never",
                    overflow="fold" if column.wrap == "letters" else "ellipsis",
                )
            for cells, style in self.rows:
                table.add_row(*(Text(*_styled(cell)) for cell in cells), style=style)
            yield table
        yield from (Text(*note) for note in self.notes)

    def to_markdown(self) -> str:
        """The table alone, a line a row."""
        rule = ["---" if column.left else "---:" for column in self.columns]
        lines = [[escaped(column.title) for column in self.columns], rule]
        for cells, style in self.rows:
            texts = [escaped(_styled(cell).text.strip()) for cell in cells]
            texts += [""] * (len(self.columns) - len(texts))
            lines.append([f"**{texts[0]}**", *texts[1:]] if style == GROUP else texts)
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_csv(self) -> str:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([column.title for column in self.columns])
        writer.writerows([_styled(cell).text for cell in cells] for cells, _ in self.rows)
        return stream.getvalue()


def escaped(text: str) -> str:
    """Text that Markdown takes as it is."""
    for mark in "\\|*~":
        text = text.replace(mark, f"\\{mark}")
    return text


def cosine_text(cosine: float) -> str:
    """Seven digits, rounded down: a cosine that is not 1 must not be printed as 1."""
    return f"{math.floor(cosine * 1e7) / 1e7:.7f}" if math.isfinite(cosine) else f"{cosine}"


def _styled(cell: str | Styled) -> Styled:
    return cell if isinstance(cell, Styled) else Styled(cell)
