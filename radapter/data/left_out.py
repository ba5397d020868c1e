"""Nothing is left out without being counted: what a source or a command passed over, by reason.

The form is a dict from reason to the names of what was passed over, in their order; a reason with
no names is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

Reason = Literal[
    "ending", "hidden", "missing", "broken", "broken row", "without picture", "without caption",
    "in no class", "duplicate", "without answer", "without edit",
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
    "without answer": "without a right picture in the gallery",
    "without edit": "in which the rules find nothing to change",
}
FIRST = 3
"""How many names are said"""


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - FIRST} more" if len(names) > FIRST else ""
    return ", ".join(names[:FIRST]) + more


def listed(names: Sequence[str], count: int) -> str:
    """Names, and `...` where they are the first of more."""
    return ", ".join(names) + (", ..." if count > len(names) else "")


def merged(*parts: Mapping[Reason, Iterable[str]]) -> LeftOut:
    """All of several, each name once."""
    names: LeftOut = {}
    for part in parts:
        for reason, some in part.items():
            names.setdefault(reason, []).extend(some)
    return {reason: list(dict.fromkeys(some)) for reason, some in names.items() if some}


def lines_of(left_out: Mapping[Reason, list[str]]) -> list[str]:
    """A line for each reason, such as "left out: 3 hidden (._a.jpg, ._b.jpg, ._c.jpg)"."""
    return lines_of_summary(summary_of(left_out))


def lines_of_summary(summary: Mapping[str, Any]) -> list[str]:
    """The same of what `summary_of` gives."""
    lines = []
    for reason, words in IN_WORDS.items():
        if reason not in summary:
            continue
        facts = summary[reason]
        kinds = ""
        if "endings" in facts:
            kinds = ": " + some([f"{number:,} {end}" for end, number in facts["endings"].items()])
        first = listed(facts["first"], facts["count"])
        lines.append(f"left out: {facts['count']:,} {words}{kinds} ({first})")
    return lines


def summary_of(left_out: Mapping[Reason, list[str]]) -> dict[str, Any]:
    """For JSON: the number and the first names by reason, and endings with their numbers."""
    summary: dict[str, Any] = {
        reason: {"count": len(names), "first": names[:FIRST]}
        for reason, names in left_out.items()
        if names
    }
    if "ending" in summary:
        endings = Counter(PurePath(n).suffix.lower() or "no ending" for n in left_out["ending"])
        summary["ending"]["endings"] = dict(endings.most_common())
    return summary
