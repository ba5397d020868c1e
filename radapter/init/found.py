"""What was recognised, and what was asked for.

Whoever looks at one form raises UsageError where it is not that form, or where it is ambiguous
(`splits.Doubt`, where a guess might train on test data), and BrokenInput where it is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from radapter.init.splits import Chosen

Task = Literal["classification", "captions"]


@dataclass(frozen=True)
class Spot:
    """A folder or file."""

    written: str
    """Its path in the recipe"""
    path: Path

    @property
    def above(self) -> Spot:
        return Spot(Path(self.written).parent.as_posix(), self.path.parent)

    def below(self, name: str) -> Spot:
        return Spot(f"{self.written}/{name}", self.path / name)


@dataclass(frozen=True)
class Wanted:
    """What the user said beside the path; None: nothing."""

    pictures: Spot | None = None
    """The folder that a table or caption file names pictures in"""
    split: str | None = None
    """The split to train on; "none": there are no splits"""
    task: Task | None = None


@dataclass
class Found:
    """What was recognised, in the words of a recipe."""

    what: str
    """Such as "class folders" """
    data: dict[str, Any]
    """The data section, but for what depends on the number of pictures"""
    validation: dict[str, Any] | None = None
    """What differs in a validation section, if the set has a split for it"""
    own_validation: bool = False
    """Whether the source has a validation split of its own"""
    notes: list[str] = field(default_factory=list)
    """What the user should know"""
    chosen: Chosen | None = None
    """What was chosen, if there were splits"""
    taken: dict[str, str] = field(default_factory=dict)
    """Why a setting is as it is, for the recipe's comments"""

    def choose(self, chosen: Chosen, validation: Callable[[str], dict[str, Any]]) -> Found:
        """The same of one of several splits; `validation` gives what differs in the section of the
        split that alpha is chosen by."""
        self.chosen = chosen
        self.notes += chosen.notes
        if chosen.validation:
            self.validation = validation(chosen.validation)
        return self
