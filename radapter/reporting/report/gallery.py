"""Pictures whose answer tuning changed: zero-shot had them right and the tuned model has not, and
the reverse. Pictures are shown only of data that may be passed on; of other data, names."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import TypeAdapter

from radapter.data import Dataset, credits, open_data
from radapter.data.clips import frames_of
from radapter.data.opening import DataSource
from radapter.data.settings import Data
from radapter.errors import RadapterError
from radapter.evaluation.shown import drawn as of_hash

EACH = 6
"""Pictures of each direction on each data set"""
SIDE = 128
"""The longer side of a picture at most, in pixels"""
PLAIN = 96
"""Pictures up to this side are PNG, as they are; larger ones JPEG"""
BUDGET = 4_500_000
"""Characters that all pictures of a page may take"""
NOT_PASSED_ON = "Names alone: nothing says that these pictures may be passed on."
GONE = "The pictures cannot be read any more, or the page would be too large."


@dataclass(frozen=True)
class Shown:
    """A picture with what the two models call it."""

    name: str
    label: str
    before: str
    after: str
    picture: str | None
    """A data address; None: only its name is shown"""


@dataclass(frozen=True)
class Wall:
    """What tuning lost and gained on one data set."""

    dataset: str
    pictures: int
    lost: list[Shown]
    gained: list[Shown]
    counts: tuple[int, int]
    """Of all that were lost and gained"""
    why_names: str = ""
    """Why there are names alone"""


@dataclass
class Gallery:
    """Pictures of one page, each embedded once, and whose work they are."""

    used: int = 0
    """Characters"""
    sets: dict[Path, set[str]] = field(default_factory=dict)
    """By the folder of their notices, the sets of which pictures are shown"""

    def walls(self, answers: dict[str, Any]) -> list[Wall]:
        """A wall for each data set, from the content of an answers file."""
        return [self._wall(name, facts) for name, facts in answers["datasets"].items()]

    def picture(
        self,
        dataset: Dataset | None,
        place: int | None,
        credited: Callable[[str], tuple[Path, set[str]] | None],
        change: Callable[[Image.Image], Image.Image] = lambda picture: picture,
    ) -> str | None:
        """A picture as a data address, with whose work it is; None: it is not shown.

        Args:
            dataset: of pictures that may be passed on; None: there is none.
            place: of the picture there; None: it is not there any more.
            credited: see `Data.credited`.
            change: what is made of it before it is shown.
        """
        if dataset is None or place is None or self.used >= BUDGET:
            return None
        whose = credited(dataset.keys[place])
        found = None if whose is None else embedded(dataset, place, change)
        if found is not None and whose is not None:
            self.used += len(found)
            self.sets.setdefault(whose[0], set()).update(whose[1])
        return found

    def _wall(self, name: str, facts: dict[str, Any]) -> Wall:
        chosen = {way: drawn(facts[way]) for way in ("lost", "gained")}
        settings, dataset, why = _opened(facts["data"])
        place = {key: i for i, key in enumerate(dataset.keys)} if dataset else {}
        credited = settings.credited if settings else lambda key: None
        shown: dict[str, list[Shown]] = {}
        for way, rows in chosen.items():
            shown[way] = []
            for key, label, before, after in rows:
                picture = self.picture(dataset, place.get(key), credited)
                shown[way].append(Shown(key, label, before, after, picture))
        if not why and any(not s.picture for s in shown["lost"] + shown["gained"]):
            why = GONE
        counts = len(facts["lost"]), len(facts["gained"])
        return Wall(name, facts["pictures"], shown["lost"], shown["gained"], counts, why)

    def credits(self) -> list[tuple[str, dict[str, str], dict[str, str]]]:
        """What `credits.credits` says of each built-in set that is shown."""
        return [credits.credits(folder, sets) for folder, sets in self.sets.items()]


def drawn(rows: Sequence[list[str]], most: int = EACH) -> list[list[str]]:
    """Some of the rows, drawn by a hash of their names."""
    return of_hash(rows, most, [row[0] for row in rows])


def _opened(section: dict[str, Any]) -> tuple[Data | None, Dataset | None, str]:
    """The section and its data, if its pictures may be shown; else why not."""
    try:
        settings: Data = TypeAdapter(DataSource).validate_python(section)
        if not settings.may_be_passed_on:
            return settings, None, NOT_PASSED_ON
        return settings, open_data(settings), ""
    except (RadapterError, ValueError) as error:
        return None, None, not_opened(error)


def not_opened(error: Exception) -> str:
    """Why there are names alone."""
    return f"Names alone: the data cannot be opened ({str(error).splitlines()[0]})."


def embedded(
    dataset: Dataset,
    place: int,
    change: Callable[[Image.Image], Image.Image] = lambda picture: picture,
) -> str | None:
    """A small copy of a picture, of a clip its first frame, as a data address; None if it cannot be
    read."""
    try:
        picture = change(frames_of(dataset.read(place))[0])
    except RadapterError:
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    kind = "PNG" if max(picture.size) <= PLAIN else "JPEG"
    stream = io.BytesIO()
    picture.save(stream, kind, optimize=True)
    content = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{content}"
