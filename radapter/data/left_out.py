"""Nothing is left out without being counted: what a source or a command passed over, by reason.

The form is a dict from reason to the names of what was passed over, in their order; a reason with
no names is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal

Reason = Literal[
    "ending", "hidden", "missing", "broken", "broken row", "without picture", "without caption",
    "in no class", "duplicate",
]  # fmt: skip
LeftOut = dict[Reason, list[str]]
IN_WORDS: dict[Reason, str] = {
    "ending": "with endings that are not read",
    "hidden": "hidden",
    "missing": "not there",
    "broken": "broken",
    "broken row": "in broken rows",
    "without picture": "without a picture",
    "without caption": "without a caption",
    "in no class": "in no class",
    "duplicate": "exact copies",
}
FIRST = 3
"""How many names are said"""


def merged(*parts: Mapping[Reason, Iterable[str]]) -> LeftOut:
    """All of several, each name once."""
    names: LeftOut = {}
    for part in parts:
        for reason, some in part.items():
            names.setdefault(reason, []).extend(some)
    return {reason: list(dict.fromkeys(some)) for reason, some in names.items() if some}


def count(left_out: Mapping[Reason, list[str]]) -> int:
    """How many names there are in all."""
    return sum(map(len, left_out.values()))


def lines_of(left_out: Mapping[Reason, list[str]]) -> list[str]:
    """A line for each reason, such as "left out: 3 hidden (._a.jpg, ._b.jpg, ._c.jpg)"."""
    lines = []
    for reason, words in IN_WORDS.items():
        names = left_out.get(reason, [])
        if names:
            kinds = f": {_endings(names)}" if reason == "ending" else ""
            lines.append(f"left out: {len(names):,} {words}{kinds} ({_some(names)})")
    return lines


def summary_of(left_out: Mapping[Reason, list[str]]) -> dict[str, Any]:
    """For JSON: the number and the first names by reason, and endings with their numbers."""
    summary: dict[str, Any] = {
        reason: {"count": len(names), "first": names[:FIRST]}
        for reason, names in left_out.items()
        if names
    }
    if "ending" in summary:
        summary["ending"]["endings"] = dict(_numbers(left_out["ending"]))
    return summary


def _numbers(names: list[str]) -> list[tuple[str, int]]:
    endings = Counter(PurePath(name).suffix.lower() or "no ending" for name in names)
    return endings.most_common()


def _endings(names: list[str]) -> str:
    numbers = _numbers(names)
    more = f" and {len(numbers) - FIRST} more" if len(numbers) > FIRST else ""
    return ", ".join(f"{number:,} {ending}" for ending, number in numbers[:FIRST]) + more


def _some(names: list[str]) -> str:
    return ", ".join(names[:FIRST]) + (", ..." if len(names) > FIRST else "")
