"""The training loop: from a recipe to a run folder with an averaged adapter in it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from radapter import run as runs
from radapter.data.dataset import check_broken, rooted
from radapter.data.pairs import loader
from radapter.errors import RadapterError
from radapter.recipe import Recipe
from radapter.training import checkpoints, failures, memory
from radapter.training.files import write_adapter, write_environment
from radapter.training.optimisation import learning_rate
from radapter.training.preparing import Parts, Plan, prepare
from radapter.training.step import (
    load_scaler,
    optimizer_step,
    scaler_tensors,
    training_mode,
)
from radapter.training.waiting import Waited

LOG_LINES = 500
"""metrics.jsonl has about so many, whatever the number of steps."""


class Interrupted(RadapterError):
    """Training was asked to stop; its state is saved."""

    exit_code = 130

    def __init__(self, run: runs.Run, step: int):
        super().__init__(
            f"Stopped after step {step}; the state is saved. "
            f"Next: radapter train --resume {run.path}",
            details={"run": str(run.path), "step": step},
        )
        self.run, self.step = run, step


def train(
    recipe: Recipe,
    root: Path = runs.DEFAULT_ROOT,
    *,
    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> runs.Run:
    """Train what the recipe says and leave the averaged adapter in a new run folder.

    Args:
        recipe: a validated recipe.
        root: the folder that run folders are made in.
        on_start: called once with the run and its plan.
        on_step: called after every step with `step`, `steps`, `loss`, `lr`, `seconds`.
        should_stop: asked after every step; if true, the state is saved and Interrupted raised.

    Raises:
        BrokenInput, UsageError, MissingDependency: before anything is written.
        GateFailed: the loss is no longer finite.
        Interrupted: on `should_stop`.
    """
    parts = prepare(recipe)
    run = runs.create(rooted(recipe), root)
    with run.lock():
        write_environment(run)
        on_start(run, parts.plan())
        _loop(run, parts, None, on_step, should_stop)
    return run


def resume(
    run: runs.Run,
    *,
    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> runs.Run:
    """Go on from the run's newest whole checkpoint; a finished run is left as it is. See `train`.

    On one machine's CPU the result is bit for bit that of a run that was never stopped.
    """
    recipe = run.recipe()
    if run.adapter.is_file():
        return run
    with run.lock():
        parts = prepare(recipe)
        checkpoint = checkpoints.load(run.checkpoints)
        on_start(run, parts.plan())
        _loop(run, parts, checkpoint, on_step, should_stop)
    return run


def _loop(
    run: runs.Run,
    parts: Parts,
    checkpoint: checkpoints.Checkpoint | None,
    on_step: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> None:
    recipe, o, attached = parts.recipe, parts.recipe.optimisation, parts.attached
    optimizer = parts.optimizer
    step, before = 0, 0.0
    if checkpoint is not None:
        attached.load_state(checkpoint.method)
        checkpoints.load_optimizer(optimizer, checkpoint.optimizer)
        load_scaler(parts.scaler, checkpoint.scaler)
        step, before = checkpoint.step, checkpoint.seconds
    order = parts.order(start_step=step)
    log_every = max(1, order.steps // LOG_LINES)
    _cut_metrics(run.metrics, step)
    broken: set[str] = set()
    session = checkpoint.session if checkpoint else {}
    recent: list[float] = session.get("recent_losses", [])
    bad: list[dict[str, Any]] = session.get("bad_steps", [])
    within_step = False
    start = saved = time.monotonic()
    training_mode(parts.base.model)

    def save_checkpoint() -> None:
        state = checkpoints.Checkpoint(
            step,
            before + time.monotonic() - start,
            attached.state(),
            checkpoints.optimizer_tensors(optimizer),
            scaler_tensors(parts.scaler),
            {"recent_losses": recent, "bad_steps": bad},
        )
        checkpoints.save(run.checkpoints, state, recipe.checkpoints.keep)

    def explained(error: Exception) -> Exception:
        save = None if within_step else save_checkpoint
        return failures.explained(error, run, parts, step, save)

    with (
        failures.explaining(explained),
        open(run.metrics, "a", encoding="utf-8") as metrics_file,
    ):
        batches = loader(parts.pairs, order, parts.base.tokenizer, recipe.workers)
        waited = Waited(failures.batches(batches))
        for batch in waited:
            _count_broken(broken, batch["broken"], recipe.data.broken_images)
            lr = learning_rate(
                step,
                steps=order.steps,
                peak=o.lr,
                warmup_steps=o.warmup_steps,
                final=o.final_lr,
            )
            for group in optimizer.param_groups:
                group["lr"] = lr
            # Each step's draws depend on its number alone, so no generator state is stored.
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            within_step = True
            if len(batch["groups"]):
                try:
                    recent.append(optimizer_step(parts, batch))
                    bad.clear()
                except failures.NotFinite as error:
                    failures.leave_out(error, run, parts, step, bad)
            step += 1
            within_step = False
            metrics = {
                "step": step,
                "steps": order.steps,
                "loss": sum(recent) / max(1, len(recent)),
                "lr": lr,
                "start_share": attached.start_share(),
                "seconds": round(before + time.monotonic() - start, 3),
                "data_wait_share": round(waited.share(), 4),
                **memory.peak(parts.device),
            }
            if step % log_every == 0 or step == order.steps:
                metrics_file.write(json.dumps(metrics) + "\n")
                failures.tried(metrics_file.flush, "The last lines of metrics.jsonl were")
                recent.clear()
                waited.restart()
            on_step(metrics)
            if step < order.steps:
                if should_stop():
                    save_checkpoint()
                    raise Interrupted(run, step)
                if time.monotonic() - saved > recipe.checkpoints.every_seconds:
                    failures.tried(save_checkpoint, f"The state after step {step} was")
                    saved = time.monotonic()
        write_adapter(run, parts, order.steps)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _count_broken(broken: set[str], found: list[str], limit: int) -> None:
    for message in found:
        if message not in broken and limit:
            print(f"skipped: {message}", file=sys.stderr)
        broken.add(message)
    check_broken(sorted(broken), limit, "data.broken_images")


def _cut_metrics(path: Path, step: int) -> None:
    """Drop the lines after the step that a resumed run starts from, and a half-written last one."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            break
    runs.write_atomic(path, "".join(kept))
