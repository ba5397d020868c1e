"""The page: sections of tables, figures and pictures in one file of HTML, which opens anywhere.

Nothing is loaded from elsewhere: pictures, style, scripts and plotly.js are in the file, and its
Content-Security-Policy has the browser refuse anything else. plotly.js is the basic bundle as npm
has it, pinned by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import radapter
from radapter.errors import BrokenInput, UsageError
from radapter.files import write_atomic
from radapter.reporting.report.figures import Figure, Panel
from radapter.reporting.report.gallery import Wall
from radapter.reporting.report.strips import Strips
from radapter.reporting.table import GROUP, Table

FOLDER = Path(__file__).parent / "page"
PLOTLY = FOLDER / "plotly-basic-4.1.1.min.js"
"""npm package plotly.js-basic-dist-min 4.1.1"""
PLOTLY_SHA256 = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
LARGEST = 8_000_000
"""Bytes of a page at most"""
NO_ROOM = "The page has no room for all pictures: of the last ones there are names alone."


@dataclass(frozen=True)
class Section:
    """A part of a page with its heading: tables, figures, sentences, and the two below."""

    id: str
    title: str
    parts: Sequence[Any]


@dataclass(frozen=True)
class Folded:
    """Tables and sentences that stand behind their title."""

    title: str
    parts: Sequence[Table | str]
    open: bool = False


@dataclass(frozen=True)
class Walls:
    """What one run changed, data set by data set, in pictures."""

    title: str
    note: str
    walls: list[Wall | Strips]


@dataclass(frozen=True)
class Page:
    """All that is on a page."""

    title: str
    lead: str
    sections: list[Section]
    credits: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    """Of each built-in set whose pictures are shown: changes, authors, licences"""


@dataclass
class Room:
    """For the pictures of a page, in the order in which they stand there."""

    left: float = float("inf")
    """Characters"""
    used: int = 0

    def fits(self, picture: str | None) -> bool:
        """Whether there is one, and room for it; from the first that does not fit, for none."""
        if picture is None:
            return False
        self.left -= len(picture)
        self.used += len(picture) if self.left >= 0 else 0
        return self.left >= 0


def render(page: Page, room: Room | None = None) -> str:
    """The page as HTML.

    Args:
        room: for pictures; None: for all of them.

    Raises:
        BrokenInput: the installed plotly.js is not the one that it should be.
    """
    plotly = PLOTLY.read_text(encoding="utf-8")
    if hashlib.sha256(plotly.encode()).hexdigest() != PLOTLY_SHA256:
        raise BrokenInput(
            f"{PLOTLY} is not the file that radapter came with: install radapter again."
        )
    room = room or Room()
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    drawn: list[dict[str, Any]] = []

    def plot(panel: Panel) -> int:
        """Have a panel drawn by the script: its number."""
        drawn.append({"data": panel.traces, "layout": panel.layout})
        return len(drawn) - 1

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        page=page,
        kind=kind,
        fits=room.fits,
        no_room=NO_ROOM if math.isfinite(room.left) else "",
        is_strips=lambda wall: isinstance(wall, Strips),
        sortable=lambda table: all(style != GROUP for _, style in table.rows),
        cells=lambda cells: [cell if isinstance(cell, str) else cell.text for cell in cells],
        plot=plot,
        version=radapter.__version__,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly),
        notice=(FOLDER / "NOTICE.md").read_text(encoding="utf-8"),
        script=Markup(script),
        hashes=[_hash(plotly), _hash(script)],
        drawn=lambda: Markup(json.dumps(drawn).replace("<", "\\u003c")),
    )


def kind(part: Any) -> str:
    """What the template makes of a part."""
    if isinstance(part, Figure):
        return "figure"
    if isinstance(part, Table):
        return "table"
    if isinstance(part, Walls):
        return "walls"
    return "text" if isinstance(part, str) else "folded"


def write(page: Page, path: Path) -> int:
    """Write the page, and say how many bytes it has. Pictures for which it has no room, the last
    ones, are left out.

    Raises:
        UsageError: it is too large without any.
    """
    room = Room()
    content = render(page, room).encode("utf-8", "replace")
    if len(content) > LARGEST:
        bare = len(content) - room.used + 2 * len(NO_ROOM)
        content = render(page, Room(LARGEST - bare)).encode("utf-8", "replace")
    if len(content) > LARGEST:
        raise UsageError(
            f"{path} would have {len(content) / 1e6:.1f} MB without pictures, and a page has at "
            f"most {LARGEST / 1e6:.1f}. Report on fewer runs, or on a study of fewer methods."
        )
    write_atomic(path, content)
    return len(content)


def _hash(script: str) -> str:
    """As a Content-Security-Policy has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
