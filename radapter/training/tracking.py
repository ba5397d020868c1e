"""Where the numbers of training go: metrics.jsonl always, other trackers if the recipe names them.

A tracker is three calls. To add one: a class here, a line in TRACKERS, its name in the recipe.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from radapter import files
from radapter import recipe as recipes
from radapter import run as runs
from radapter.errors import not_installed
from radapter.recipe import Recipe

Metrics = Mapping[str, Any]
Log = Callable[[int, Metrics], None]


class Tracker(Protocol):
    """Takes the numbers of one run."""

    def start(self, run: runs.Run, recipe: Recipe, step: int) -> None:
        """Before the first step. A resumed run goes on after `step` (a new one: 0), and what was
        logged of later steps is dropped: they are done again."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Numbers after `step` steps: of training; or of validation, a mapping in `validation`."""

    def finish(self) -> None:
        """After the last step, and when training is interrupted or fails."""


class MetricsFile:
    """metrics.jsonl: a line of JSON for each call, on disk before the next step."""

    def start(self, run: runs.Run, recipe: Recipe, step: int) -> None:
        _cut(run, step)
        self.file = open(run.metrics, "a", encoding="utf-8")  # noqa: SIM115 (until `finish`)

    def log(self, step: int, metrics: Metrics) -> None:
        self.file.write(json.dumps({"step": step, **metrics}) + "\n")
        self.file.flush()

    def finish(self) -> None:
        self.file.close()


class TensorBoard:
    """Event files in the run's `tensorboard/`, through torch's own writer."""

    def __init__(self) -> None:
        if not importlib.util.find_spec("tensorboard"):
            raise not_installed("`trackers: [tensorboard]`", "tensorboard", "tensorboard")

    def start(self, run: runs.Run, recipe: Recipe, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Events from purge_step on, of a session that went further, are hidden.
        purge_step = step + 1 if step else None
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=purge_step)
        if not step:
            text = "".join(f"    {line}\n" for line in recipes.dump(recipe).splitlines())
            self.writer.add_text("recipe", text, 0)

    def log(self, step: int, metrics: Metrics) -> None:
        validation = metrics.get("validation", {})
        kind, values = ("validation", validation) if validation else ("train", metrics)
        for name, value in values.items():
            if isinstance(value, int | float) and name not in ("step", "steps"):
                self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


TRACKERS: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard}


def trackers(recipe: Recipe) -> list[Tracker]:
    """What the recipe wants its numbers in.

    Raises:
        MissingDependency: a package for it is absent; the message has the line that installs it.
    """
    return [MetricsFile(), *(TRACKERS[name]() for name in dict.fromkeys(recipe.trackers))]


@contextmanager
def tracked(to: Sequence[Tracker], run: runs.Run, recipe: Recipe, step: int) -> Iterator[Log]:
    """Start all trackers at `step`; gives the function that logs to each of them."""
    with ExitStack() as stack:
        for tracker in to:
            tracker.start(run, recipe, step)
            stack.callback(tracker.finish)

        def log(step: int, metrics: Metrics) -> None:
            for tracker in to:
                tracker.log(step, metrics)

        yield log


def _cut(run: runs.Run, step: int) -> None:
    """Drop the lines after the step that a resumed run starts from, and a half-written last one."""
    if run.metrics.is_file():
        kept = [json.dumps(line) + "\n" for line in run.logged() if line["step"] <= step]
        files.write_atomic(run.metrics, "".join(kept))
