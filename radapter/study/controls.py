"""What each method of a study owes to what a control leaves out, such as the order of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from radapter.evaluation import intervals

if TYPE_CHECKING:
    from radapter.study.table import Column

NORMAL = 1.96
"""Standard errors from the mean to either end of a 95 % interval of normal numbers"""


def controls(columns: Sequence[Column]) -> list[tuple[int, int]]:
    """The places of a data set and of its control, which is called NAME-..., for every metric."""
    found = []
    for place, control in enumerate(columns):
        if control.role != "control" or len(control.sets) > 1:
            continue
        of = [
            (len(own.place), number)
            for number, own in enumerate(columns)
            if (own.suite, own.metric) == (control.suite, control.metric)
            and own.role != "control"
            and control.place.startswith(f"{own.place}-")
        ]
        found += [(max(of)[1], place)] if of else []
    return found


def add_controls(
    rows: Sequence[dict[str, Any]], columns: Sequence[Column], drawn: np.ndarray
) -> None:
    """Fill in what each method scores above its controls, paired: the same trainings, clusters and
    draws.

    Args:
        rows: the methods of `table.json`.
        drawn: [resamples, methods, columns].
    """
    for m, row in enumerate(rows):
        row["controls"] = []
        for place, control in controls(columns):
            apart = np.round(drawn[:, m, place] - drawn[:, m, control], 12)  # what is equal is 0
            low, high = intervals.interval_of(apart)
            row["controls"].append(
                {
                    "column": place,
                    "control": control,
                    "mean": row["values"][place]["mean"] - row["values"][control]["mean"],
                    "interval": (low, high),
                    "error": (high - low) / (2 * NORMAL),
                }
            )
