"""How much of training's time is spent on waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from radapter import processors

T = TypeVar("T")

LARGE = 0.3
"""The share of time spent waiting from which on advice is given"""
FIRST, STEPS, SECONDS = 5, 50, 20.0
"""Judged from the fifth item on, when workers have begun, over so many at least and so long"""


class Waited(Generic[T]):
    """Iterates over `items` and takes the time that each is waited for."""

    def __init__(self, items: Iterable[T]):
        self.items = items
        self.number, self.said = 0, False
        self.since, self.all = time.monotonic(), 0.0
        self.restart()

    def restart(self) -> None:
        """Forget the time up to now."""
        self.start, self.seconds = time.monotonic(), 0.0

    def __iter__(self) -> Iterator[T]:
        iterator = iter(self.items)
        while True:
            start = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            waited = time.monotonic() - start
            self.seconds += waited
            self.all += waited
            self.number += 1
            if self.number == FIRST:
                self.since, self.all = time.monotonic(), 0.0
            yield item

    def exclude(self, seconds: float) -> None:
        """Time that was spent on something else than items."""
        self.start += seconds
        self.since += seconds

    def share(self) -> float:
        """Of the time since the start or the last `restart`, 0 to 1."""
        return self.seconds / max(time.monotonic() - self.start, 1e-9)

    def advice(self, workers: int) -> str | None:
        """What to do about a large share, said once; `workers` processes read the items."""
        seconds = time.monotonic() - self.since
        enough = self.number >= FIRST + STEPS and seconds > SECONDS
        if self.said or not enough or self.all < LARGE * seconds:
            return None
        self.said = True
        count = processors.at_hand()
        readers = f"{workers} processes read" if workers > 1 else "one process reads"
        if workers < count - 1:
            following = f"workers={count - 1}"
        else:
            following = "more processors, or pictures that are stored at about the model's size"
        return (
            f"{self.all / seconds:.0%} of the time so far waited for pictures, which {readers} on "
            f"{count} processors. Next to try: {following}. (workers may be changed in the run's "
            "recipe.yaml before --resume; the result stays the same.)"
        )
