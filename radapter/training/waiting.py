"""How much of training's time is spent on waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waited(Generic[T]):
    """Iterates over `items` and takes the time that each is waited for."""

    def __init__(self, items: Iterable[T]):
        self.items = items
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
            self.seconds += time.monotonic() - start
            yield item

    def share(self) -> float:
        """Of the time since the start or the last `restart`, 0 to 1."""
        return self.seconds / max(time.monotonic() - self.start, 1e-9)
