"""Validation while training: held-out data scored with the averaged weights, the best one kept."""

from __future__ import annotations

import copy
import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from radapter import distributed
from radapter.data import Dataset
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.scores import Task
from radapter.evaluation.suite import Suite, held_out_suite, trained_metric
from radapter.heads import head as heads
from radapter.merging import with_adapters
from radapter.methods.attached import Attached
from radapter.models import LoadedModel
from radapter.recipe import Recipe
from radapter.registry import METHODS, Call, folds, load
from radapter.runtimes.opened import from_loaded

Progress = Callable[[int, int], None]


@dataclass
class Validator:
    """The held-out data, and a plain model to score it with that training never touches."""

    suite: Suite
    opened: dict[str, dict[Task, Dataset]]
    plain: LoadedModel
    """On the device that is trained on; its weights are those that were scored last"""
    base: dict[str, Tensor]
    """Weights before training, on the CPU"""
    device: torch.device

    def score(
        self,
        method: Call,
        head: heads.Training | None,
        stored: dict[str, Tensor],
        alpha: float,
        on_progress: Progress,
    ) -> dict[str, float]:
        """Every metric, from 0 to 1, of the base model with `stored` merged at `alpha`, or attached
        where it does not fold, and of its head: the same number as that of the model which a run
        deploys. All encoding is in here."""
        scored = self.plain
        towers, own = heads.split(stored)
        if folds(method.name):
            scored.model.load_state_dict(load(METHODS, method.name).merge(self.base, towers, alpha))
        else:
            scored = with_adapters(self.plain, method.model_dump(), towers, alpha)
        mixed = heads.mixed(head.facts, own, alpha) if head else None
        evaluated = evaluate(
            self.suite,
            from_loaded(scored, device=str(self.device), head=mixed),
            opened=self.opened,
            on_progress=on_progress,
        )
        ((name, tasks),) = self.opened.items()
        result = evaluated.sets[name]
        readable = set(result.pictures)
        for task, dataset in tasks.items():  # what cannot be read is named once, not every time
            kept = [i for i, key in enumerate(dataset.keys) if key in readable]
            if len(kept) < len(dataset):
                tasks[task] = dataset.select(kept)
        found = {metric: result.value(metric) for metric in result.metrics}
        return distributed.all_gather_object(found)[0]  # all decide alike, even on unlike machines


def open_held_out(
    recipe: Recipe,
    base: LoadedModel,
    device: torch.device,
    classes: Sequence[str] | None = None,
) -> Validator:
    """The recipe's held-out data with a copy of the base model, to be made before a method is
    attached to it.

    Args:
        classes: the names of those that are trained, if any are: what is answered among.

    Raises:
        BrokenInput: the data is missing or damaged.
    """
    suite = held_out_suite(recipe, classes)
    opened = suite.open()
    for dataset in (dataset for tasks in opened.values() for dataset in tasks.values()):
        said = dataset.protocol.get("classes", "")
        if ";" in said and suite.datasets[0].classes and distributed.is_main_process():
            warnings.warn(f"Validation scores the classes of training: {said}.", stacklevel=2)
    state = {name: value.detach().cpu().clone() for name, value in base.model.state_dict().items()}
    model = copy.deepcopy(base.model).eval().requires_grad_(False).to(device)
    return Validator(suite, opened, dataclasses.replace(base, model=model), state, device)


@dataclass
class Record:
    """Validations so far: what a checkpoint holds to go on from them exactly."""

    step: int = 0
    """The last that was scored; 0: none"""
    behind: int = 0
    """Validations since the best"""
    best: dict[str, Any] | None = None
    """`step`, `start_share` and `validation`, the metrics"""
    adapter: dict[str, Tensor] = field(default_factory=dict)
    """The best averaged adapter"""

    def facts(self) -> dict[str, Any]:
        return {"step": self.step, "behind": self.behind, "best": self.best}


class Validation:
    """When to score, what was best, when to stop."""

    def __init__(
        self,
        recipe: Recipe,
        method: Call,
        held_out: Validator,
        steps_per_epoch: int,
        steps: int,
        head: heads.Training | None = None,
    ):
        monitor = recipe.monitor
        self.every = monitor.every_steps or steps_per_epoch * (monitor.every_epochs or 1)
        self.steps, self.held_out = steps, held_out
        self.method, self.head = method, head
        self.metric = trained_metric(recipe)
        self.alpha = recipe.alpha if monitor.alpha is None else monitor.alpha
        self.patience = monitor.early_stop.patience if monitor.early_stop else None
        self.record = Record()

    def is_due(self, step: int) -> bool:
        """Every so many steps and after the last; not again where a resumed run has it already."""
        on_time = step > 0 and (step % self.every == 0 or step == self.steps)
        return on_time and step > self.record.step

    def run(
        self, step: int, attached: Attached, on_progress: Progress = lambda done, total: None
    ) -> dict[str, Any]:
        """Score the present averaged weights: a line of the metrics, `validation` with every metric
        from 0 to 1, `alpha`, `best_step` and `validation_seconds`."""
        start = time.monotonic()
        stored = attached.stored() | (self.head.stored() if self.head else {})
        metrics = self.held_out.score(self.method, self.head, stored, self.alpha, on_progress)
        record, best = self.record, self.record.best
        record.step, record.behind = step, record.behind + 1
        if best is None or metrics[self.metric] > best["validation"][self.metric]:
            share = attached.start_share
            record.best = {"step": step, "start_share": share, "validation": metrics}
            record.adapter, record.behind = stored, 0
        assert record.best is not None
        return {
            "validation": metrics,
            "metric": self.metric,
            "alpha": self.alpha,
            "best_step": record.best["step"],
            "validation_seconds": round(time.monotonic() - start, 3),
        }

    @property
    def improved(self) -> bool:
        """Whether the last validation was the best."""
        return self.record.best is not None and self.record.behind == 0

    @property
    def exhausted(self) -> bool:
        """Whether it is time for an early stop."""
        return self.patience is not None and self.record.behind >= self.patience
