"""What trainings cost, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from radapter.reporting.comparison_tables import size_text
from radapter.reporting.report.figures import Figure, bars
from radapter.reporting.terminal import duration

COST = {
    "trained_parameters": ("trained parameters", lambda value: f"{value:,.0f}"),
    "stored_bytes": ("stored", size_text),
    "seconds": ("training time", duration),
    "peak_memory_bytes": ("peak memory", lambda value: f"{value / 1e9:.2f} GB"),
}
"""By key of a run's facts: what it is called, and how it is written"""


def costs(rows: Sequence[tuple[str, Mapping[str, Any]]], note: str) -> Figure:
    """Bars of each row, (label, values by key of COST); None where one is not known."""
    found = []
    for label, values in rows:
        own = [(values.get(key), text) for key, (_, text) in COST.items()]
        cells = [None if value is None else (value, text(value)) for value, text in own]
        found.append((label, cells))
    return bars("Trained, stored, waited for", note, [name for name, _ in COST.values()], found)
