"""What a task measures: its metrics by name, and a score for every item. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError

from radapter.registry import TASKS, load

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.evaluation.shown import Firsts, Maps


@dataclass(frozen=True)
class Metric:
    """The names of a metric, and how its values are read."""

    title: str
    """For people, such as "caption to picture R@1" """
    better: Literal["larger", "smaller"] = "larger"
    share: bool = True
    """From 0 to 1, and shown in %"""
    headline: bool = False
    """In the tables of `eval`, which have room for few; a task's first is what its training and
    `--alpha auto` look at, so a larger one has to be better. The others stand in results and in
    `compare`."""

    @property
    def heading(self) -> str:
        return self.title + (", %" if self.share else "")

    def text(self, value: float) -> str:
        """Of a value, its interval or a deviation."""
        return f"{100 * value:.1f}" if self.share else f"{value:.3f}"


@dataclass
class Scored:
    """One metric on one data set: a score for every item."""

    scores: np.ndarray
    """[items], 1 for a hit and 0 for a miss"""
    clusters: np.ndarray
    """[items], the concept or picture that the item belongs to"""
    chance: float
    trivial: dict[str, float] = field(default_factory=dict)
    """What further answers that look at no picture score, by what they are"""


@dataclass
class Scores:
    """What a task makes of one data set."""

    metrics: dict[str, Scored]
    """Those of the task's METRICS, in their order"""
    predictions: Tensor | None = None
    """[pictures], an answer each, where there is one: engines are compared by it"""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was scored, such as how many captions"""
    remarks: list[str] = field(default_factory=list)
    """Sentences without their full stop: what makes a number say less than it seems to"""
    further: dict[str, Any] = field(default_factory=dict)
    """What is reported beside the metrics: numbers without an interval"""
    files: dict[str, Any] = field(default_factory=dict)
    """What is written for the server of a benchmark, JSON by the name of the file"""
    shown: Firsts | Maps | None = None
    """What reports show of it"""


# ---------------------------------------------------------------- over all tasks


def metrics() -> dict[str, Metric]:
    """Those of all tasks, by their names in results, metrics.jsonl and `--json`."""
    return {name: own for task in TASKS for name, own in load(TASKS, task).METRICS.items()}


def metric_of(name: str) -> Metric:
    """A metric by name; of one that no task has, what its name says."""
    return metrics().get(name) or Metric(name.replace("_", " "), share=False)


def name_of(metric: str) -> str:
    """What people read, such as "caption to picture R@1"."""
    return metric_of(metric).title


def task_of(metric: str) -> str | None:
    """The task that a metric is of."""
    return next((task for task in TASKS if metric in load(TASKS, task).METRICS), None)


def headlines() -> dict[str, Metric]:
    """The metrics that tables show, by name."""
    return {name: metric for name, metric in metrics().items() if metric.headline}


def main_metrics() -> dict[str, str]:
    """By task, the metric that stands for it."""
    return {task: next(n for n, m in load(TASKS, task).METRICS.items() if m.headline)
            for task in TASKS}  # fmt: skip


def tasks_of(facts: Mapping[str, Any]) -> list[str]:
    """The tasks that a data set's part of a result has numbers of."""
    return [task for task in TASKS if load(TASKS, task).METRICS.keys() & facts.keys()]


def task_for(kind: str) -> str:
    """The task for a data section's `task`, which says what its texts are."""
    return next(task for task in TASKS if kind == load(TASKS, task).DATA)


# ---------------------------------------------------------------- names in suites


def _one_of(name: str, known: list[str]) -> str:
    if name not in known:
        *first, last = map(repr, known)
        expected = f"{', '.join(first)} or {last}" if first else last
        raise PydanticKnownError("literal_error", {"expected": expected})
    return name


Task = Annotated[
    str,
    AfterValidator(lambda name: _one_of(name, list(TASKS))),
    Field(json_schema_extra={"enum": list(TASKS)}),
]
MetricName = Annotated[str, AfterValidator(lambda name: _one_of(name, list(metrics())))]
