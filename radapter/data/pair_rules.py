"""Rules by which pairs of a picture or clip and a caption are dropped: a measure and its limit.

A rule is written `words<4`: a pair with fewer words goes. `words>60` drops what has more. With `%`
the limit is taken from a sample: `score<30%` drops what is below the value that 30 % of the sample
are below. No rule of one measure looks at another, so their order changes only which one is named.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radapter.errors import UsageError, nearest

MEASURES = ("score", "words", "letters", "pictures")
"""The cosine of caption and picture; what spaces separate in the caption; its characters, for
writing without spaces; how many pictures have the caption, but for case and spaces"""


@dataclass(frozen=True)
class Rule:
    """What is dropped by one measure."""

    measure: str
    above: bool
    """Drop what is above the limit; else what is below"""
    value: float
    """The limit, or a share of the sample from 0 to 1"""
    share: bool

    @property
    def text(self) -> str:
        value = f"{100 * self.value:g}%" if self.share else f"{self.value:g}"
        return f"{self.measure}{'>' if self.above else '<'}{value}"

    def limit(self, sample: np.ndarray) -> float:
        """The limit itself: at most this share of the sample is beyond it.

        Args:
            sample: values of the measure, one at least where a share is asked for.
        """
        if not self.share:
            return self.value
        ordered = np.sort(sample)
        beyond = math.floor(self.value * len(ordered) + 1e-9)
        return float(ordered[-1 - beyond] if self.above else ordered[beyond])

    def drops(self, values: np.ndarray, limit: float) -> np.ndarray:
        """Which of them, bool [n]. What is no number is dropped by none."""
        return values > limit if self.above else values < limit


def parsed(text: str) -> Rule:
    """The rule that a text means.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"\s*(\w+)\s*([<>])\s*(-?\d*\.?\d+)\s*(%?)\s*", text)
    if found is None:
        raise UsageError(
            f"--drop '{text}': expected a measure, < or >, and a number or a share of a sample, "
            "such as 'words<4' or 'score<30%'."
        )
    measure, sign, number, percent = found.groups()
    if measure not in MEASURES:
        raise UsageError(
            f"--drop '{text}': unknown measure '{measure}'.{nearest(measure, list(MEASURES))}"
        )
    value = float(number) / (100 if percent else 1)
    if percent and not 0 <= value < 1:
        raise UsageError(f"--drop '{text}': a share is from 0 to below 100 %.")
    return Rule(measure, sign == ">", value, bool(percent))


def measured(captions: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Each measure of every pair but its score, in the order of pictures and of their captions."""
    texts = [text for own in captions for text in own]
    plain = [[like(text) for text in own] for own in captions]
    pictures = Counter(text for own in plain for text in dict.fromkeys(own))
    return {
        "words": np.array([len(text.split()) for text in texts], dtype=float),
        "letters": np.array([len(text) for text in texts], dtype=float),
        "pictures": np.array([pictures[text] for own in plain for text in own], dtype=float),
    }


def like(text: str) -> str:
    """Equal for captions that differ in case and spaces alone."""
    return " ".join(text.casefold().split())


def reasons(
    rules: Sequence[Rule], limits: Sequence[float], measures: Mapping[str, np.ndarray]
) -> list[str | None]:
    """For each pair the text of the first rule that drops it; None: no rule does."""
    number = len(measures["words"])
    found: list[str | None] = [None] * number
    for rule, limit in zip(rules, limits, strict=True):
        for place in np.flatnonzero(rule.drops(measures[rule.measure], limit)):
            found[place] = found[place] or rule.text
    return found
