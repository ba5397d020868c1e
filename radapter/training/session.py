"""A run while it is trained in this process: where it is, and what is written on the way."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from radapter import distributed
from radapter import run as runs
from radapter.data.dataset import check_broken
from radapter.errors import RadapterError
from radapter.training import checkpoints, failures, memory, resuming
from radapter.training.files import write_best, write_data
from radapter.training.preparing import Parts, Plan
from radapter.training.step import load_scaler, scaler_tensors
from radapter.training.tracking import Log
from radapter.training.validation import Record
from radapter.training.waiting import Waited

LOG_LINES = 500
"""metrics.jsonl has about so many, whatever the number of steps."""


class Interrupted(RadapterError):
    """Training was asked to stop; its state is saved."""

    exit_code = 130

    def __init__(self, run: runs.Run, step: int):
        super().__init__(
            f"Stopped after step {step}; the state is saved. Next: {failures.resuming(run)}",
            details={"run": str(run.path), "step": step},
        )
        self.run, self.step = run, step


@dataclass(frozen=True)
class Hooks:
    """What training calls on its way."""

    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None
    """Once, with the run and its plan"""
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None
    """After every step, with `step`, `steps`, `loss`, `lr`, `seconds`, and what `Validation.run`
    gives after a step that is followed by a validation"""
    on_validation: Callable[[int, int], None] = lambda done, total: None
    """While held-out data is scored, with pictures done and pictures in all"""
    should_stop: Callable[[], bool] = lambda: False
    """After every step and while held-out data is scored: if true, the state is saved and
    Interrupted raised"""


class Session:
    """Args:
    checkpoint: what the run goes on from; None: from its start.
    """

    def __init__(
        self, run: runs.Run, parts: Parts, hooks: Hooks, checkpoint: checkpoints.Checkpoint | None
    ):
        self.run, self.parts, self.hooks = run, parts, hooks
        self.validation, self.main = parts.validation(), distributed.is_main_process()
        self.step, self.seconds_before, known = 0, 0.0, {}
        if checkpoint is not None:
            parts.attached.load_state(checkpoint.method)
            checkpoints.load_optimizer(parts.optimizer, checkpoint.optimizer)
            load_scaler(parts.scaler, checkpoint.scaler)
            checkpoints.load_queue(parts.terms, checkpoint.queue, parts.device)
            self.step, self.seconds_before = checkpoint.step, checkpoint.seconds
            known = checkpoint.session
            if self.validation is not None and known.get("validation"):
                self.validation.record = Record(**known["validation"], adapter=checkpoint.best)
        self.steps = parts.order().steps
        self.belonging = resuming.belonging(parts) if self.main else {}
        self.recent: list[float] = known.get("recent_losses", [])
        """Losses since the last line of metrics.jsonl"""
        self.bad: list[dict[str, Any]] = known.get("bad_steps", [])
        """Steps in a row that were left out"""
        self.broken: set[str] = set()
        """Messages about pictures that could not be read"""
        self.unlabelled_broken: set[str] = set()
        self.phase: Literal["data", "step", "scoring"] = "data"
        """Tells `explained` where an error came from"""
        self.track: Log = lambda step, metrics: None
        self.started = self.saved = self.since = time.monotonic()
        self.pairs = 0
        """Trained on since `since`: what the rate is of"""
        self.used: dict[str, Any] = {}
        if self.main:
            if self.validation is not None:
                write_best(run, parts, self.validation)
            write_data(run, parts)

    def seconds(self) -> float:
        """Of training, over all sessions."""
        return self.seconds_before + time.monotonic() - self.started

    # ------------------------------------------------------------ the state to resume from

    def save(self) -> None:
        if not self.main:
            return
        parts, validation = self.parts, self.validation
        state = checkpoints.Checkpoint(
            step=self.step,
            seconds=self.seconds(),
            method=parts.attached.state(),
            optimizer=checkpoints.optimizer_tensors(parts.optimizer),
            scaler=scaler_tensors(parts.scaler),
            queue=checkpoints.queue_tensors(parts.terms),
            session={
                "recent_losses": self.recent,
                "bad_steps": self.bad,
                "validation": validation.record.facts() if validation else None,
            },
            best=validation.record.adapter if validation else {},
            of=self.belonging,
        )
        checkpoints.save(self.run.checkpoints, state, parts.recipe.checkpoints.keep)

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved > self.parts.recipe.checkpoints.every_seconds:
            failures.best_effort(self.save, f"The state after step {self.step} was")
            self.saved = time.monotonic()

    def interrupt_if_asked(self) -> None:
        if distributed.anyone(self.hooks.should_stop()):  # then all stop at the same step
            self.save()
            distributed.wait_for_all()
            raise Interrupted(self.run, self.step)

    def explained(self, error: Exception) -> Exception:
        """The error to leave training with: see `failures.explained`."""
        within, alone = self.phase == "step", distributed.world_size() == 1
        # Several processes have to stop at one step.
        if failures.dead_worker(error) and not within and alone and self.hooks.should_stop():
            self.save()  # the signal that asks to stop went to the workers, too
            return Interrupted(self.run, self.step)
        save, scoring = None if within else self.save, self.phase == "scoring"
        return failures.explained(error, self.run, self.parts, self.step, save, scoring=scoring)

    # ------------------------------------------------------------ between two steps

    def note_broken(self, found: list[str], unlabelled: Sequence[str] = ()) -> None:
        """Add to the pictures that could not be read; BrokenInput if there are too many."""
        recipe = self.parts.recipe
        new = self._add_broken(self.broken, found, recipe.data.broken_images, "data")
        if unlabelled and recipe.unlabelled is not None:
            limit = recipe.unlabelled.broken_images
            new |= self._add_broken(self.unlabelled_broken, unlabelled, limit, "unlabelled")
        if new and self.main:
            data = (self.run, self.parts, self.broken, self.unlabelled_broken)
            failures.best_effort(lambda: write_data(*data), "data.json was")

    def _add_broken(self, known: set[str], found: Sequence[str], limit: int, where: str) -> bool:
        """Whether some are new."""
        new = set(found) - known
        for message in dict.fromkeys(found):  # a picture with several texts is named once
            if message in new and limit and self.main:
                print(f"skipped: {message}", file=sys.stderr)
        known |= new
        check_broken(sorted(known), limit, f"{where}.broken_images")
        return bool(new)

    def validate(self) -> dict[str, Any]:
        """Score the held-out data if it is time: a line of the metrics, else nothing."""
        validation = self.validation
        if validation is None or not validation.is_due(self.step):
            return {}

        def on_progress(done: int, total: int) -> None:
            if self.main:
                self.hooks.on_validation(done, total)
            self.interrupt_if_asked()  # the state is not scored yet: a resumed run begins with it

        self.phase = "scoring"
        scored = validation.run(self.step, self.parts.attached, on_progress)
        self.phase = "data"
        self.log(scored)
        if validation.improved and self.main:
            failures.best_effort(
                lambda: write_best(self.run, self.parts, validation), "The best adapter was"
            )
        return scored

    def log(self, metrics: dict[str, Any]) -> None:
        failures.best_effort(
            lambda: self.track(self.step, metrics), "The last lines of metrics.jsonl were"
        )

    def report(self, lr: float, pairs: int, waited: Waited[Any]) -> None:
        """After a step of so many `pairs`: its numbers to the log and the caller, and a validation
        if it is time."""
        self.pairs += pairs
        logs = self.step % max(1, self.steps // LOG_LINES) == 0 or self.step == self.steps
        if logs or not self.used:
            self.used = memory.peak(self.parts.device)
        metrics = {
            "steps": self.steps,
            "loss": sum(self.recent) / max(1, len(self.recent)),
            "lr": lr,
            "start_share": self.parts.attached.start_share,
            "seconds": round(self.seconds(), 3),
            "pairs_per_second": round(self.pairs / (time.monotonic() - self.since), 2),
            "data_wait_share": round(waited.share(), 4),
            **self.used,
        }
        if logs:
            self.log(metrics)
            self.recent.clear()
            self.since, self.pairs = time.monotonic(), 0
            waited.restart()
        scored = self.validate()
        self.since += scored.get("validation_seconds", 0.0)
        waited.exclude(scored.get("validation_seconds", 0.0))
        if not self.main:
            return
        if advice := waited.advice(self.parts.workers):
            warnings.warn(advice, stacklevel=2)
        self.hooks.on_step({"step": self.step, **metrics, **scored})
