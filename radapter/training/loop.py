"""The training loop: from a recipe to a run folder with an averaged adapter in it."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from radapter import distributed
from radapter import run as runs
from radapter.data.dataset import check_broken
from radapter.data.pairs import loader
from radapter.errors import BrokenInput, RadapterError
from radapter.models import weights_hash
from radapter.precision import exact_fp32
from radapter.recipe import Recipe, rooted
from radapter.training import checkpoints, failures, memory, resuming
from radapter.training.feeding import ahead
from radapter.training.files import write_adapter, write_best, write_data, write_environment
from radapter.training.optimisation import learning_rate
from radapter.training.preparing import Parts, Plan, device_of, prepare
from radapter.training.step import (
    load_scaler,
    optimizer_step,
    scaler_tensors,
    training_mode,
)
from radapter.training.tracking import tracked
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


def train(
    recipe: Recipe,
    root: Path = runs.DEFAULT_ROOT,
    *,
    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    on_validation: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> runs.Run:
    """Train what the recipe says and leave the averaged adapter in a new run folder.

    Args:
        recipe: a validated recipe.
        root: the folder that run folders are made in.
        on_start: called once with the run and its plan.
        on_step: called after every step with `step`, `steps`, `loss`, `lr`, `seconds`, and what
            `Validation.run` gives after a step that is followed by a validation.
        on_validation: called while held-out data is scored, with pictures done and pictures in all.
        should_stop: asked after every step and while held-out data is scored; if true, the state is
            saved and Interrupted raised.

    Raises:
        BrokenInput, UsageError, MissingDependency: before anything is written.
        GateFailed: the loss is no longer finite.
        Interrupted: on `should_stop`.
    """
    with exact_fp32(), distributed.joined(device_of(recipe)):
        parts = prepare(recipe)
        path = str(runs.create(rooted(recipe), root).path) if distributed.leads() else ""
        run = runs.Run(Path(distributed.everyone(path)[0]))
        with _locked(run):
            if distributed.leads():
                write_environment(run)
                on_start(run, parts.plan())
            _check_ranks(parts, None)
            _loop(run, parts, None, on_step, on_validation, should_stop)
    return run


def resume(
    run: runs.Run,
    *,
    on_start: Callable[[runs.Run, Plan], None] = lambda run, plan: None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    on_validation: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> runs.Run:
    """Go on from the run's newest whole checkpoint; a finished run is left as it is. See `train`.

    On one machine's CPU the result is bit for bit that of a run that was never stopped.

    Raises:
        UsageError, BrokenInput: the recipe, weights or data are not what the checkpoint was trained
            with; see `training.resuming`.
    """
    recipe = run.recipe()
    if run.adapter.is_file():
        return run
    with exact_fp32(), distributed.joined(device_of(recipe)), _locked(run):
        distributed.wait_for_all()  # what was half-done is cleared
        parts = prepare(recipe)
        checkpoint = checkpoints.load(run.checkpoints)
        if checkpoint is not None:
            resuming.check(checkpoint, parts, run)
        _check_ranks(parts, checkpoint)
        if distributed.leads():
            on_start(run, parts.plan())
        _loop(run, parts, checkpoint, on_step, on_validation, should_stop)
    return run


def _check_ranks(parts: Parts, checkpoint: checkpoints.Checkpoint | None) -> None:
    """BrokenInput if ranks would start from different things: their gradients would be added up."""
    if distributed.ranks() == 1:
        return
    dataset = parts.pairs.dataset
    facts = {
        "recipe": parts.recipe.model_dump_json(),
        "weights of the base model": parts.base_hash,
        "pictures": [len(parts.pairs), *dataset.keys[:1], *dataset.keys[-1:]],
        "checkpoint": checkpoint.step if checkpoint else 0,
        "trained weights": weights_hash(
            checkpoint.method if checkpoint else parts.attached.state()
        ),
    }
    hashes = {what: hashlib.sha256(repr(of).encode()).hexdigest() for what, of in facts.items()}
    said = distributed.everyone(hashes)
    differs = [what for what in facts if len({other[what] for other in said}) > 1]
    if differs:
        raise BrokenInput(
            f"The {len(said)} processes do not start from the same {' and '.join(differs)}: every "
            "machine has to see the same run folder, data and model."
        )


def _locked(run: runs.Run) -> AbstractContextManager[None]:
    """The run is the first rank's to write: the others only read."""
    return run.lock() if distributed.leads() else nullcontext()


def _loop(
    run: runs.Run,
    parts: Parts,
    checkpoint: checkpoints.Checkpoint | None,
    on_step: Callable[[dict[str, Any]], None],
    on_validation: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> None:
    recipe, o, attached = parts.recipe, parts.recipe.optimisation, parts.attached
    optimizer, validation = parts.optimizer, parts.validation()
    step, before = 0, 0.0
    if checkpoint is not None:
        attached.load_state(checkpoint.method)
        checkpoints.load_optimizer(optimizer, checkpoint.optimizer)
        load_scaler(parts.scaler, checkpoint.scaler)
        step, before = checkpoint.step, checkpoint.seconds
    order = parts.order(start_step=step)
    log_every = max(1, order.steps // LOG_LINES)
    leads = distributed.leads()
    of = resuming.belonging(parts) if leads else {}
    broken: set[str] = set()
    session = checkpoint.session if checkpoint else {}
    if validation is not None:
        if checkpoint is not None and session.get("validation"):
            validation.record = Record(**session["validation"], adapter=checkpoint.best)
        if leads:
            write_best(run, parts, validation)
    recent: list[float] = session.get("recent_losses", [])
    bad: list[dict[str, Any]] = session.get("bad_steps", [])
    within_step = scoring = False
    start = saved = since = time.monotonic()
    used: dict[str, Any] = {}
    pairs = 0
    """Trained on since then: what the rate is of"""
    training_mode(parts.base.model)
    if leads:
        write_data(run, parts)

    def save_checkpoint() -> None:
        if not leads:
            return
        state = checkpoints.Checkpoint(
            step,
            before + time.monotonic() - start,
            attached.state(),
            checkpoints.optimizer_tensors(optimizer),
            scaler_tensors(parts.scaler),
            {
                "recent_losses": recent,
                "bad_steps": bad,
                "validation": validation.record.facts() if validation else None,
            },
            validation.record.adapter if validation else {},
            of,
        )
        checkpoints.save(run.checkpoints, state, recipe.checkpoints.keep)

    def explained(error: Exception) -> Exception:
        alone = distributed.ranks() == 1  # else all have to stop at one step
        if failures.dead_worker(error) and not within_step and alone and should_stop():
            save_checkpoint()  # the signal that asks to stop went to the workers, too
            return Interrupted(run, step)
        save = None if within_step else save_checkpoint
        return failures.explained(error, run, parts, step, save, scoring=scoring)

    def interrupt() -> None:
        if distributed.anyone(should_stop()):  # then all stop at the same step
            save_checkpoint()
            distributed.wait_for_all()
            raise Interrupted(run, step)

    def validate() -> dict[str, Any]:
        nonlocal scoring
        if validation is None or not validation.is_due(step):
            return {}

        def on_progress(done: int, total: int) -> None:
            if leads:
                on_validation(done, total)
            interrupt()  # what is saved then has not been scored: a resumed run begins with it

        scoring = True
        found = validation.run(step, attached, on_progress)
        scoring = False
        log(step, found)
        if validation.improved and leads:
            failures.tried(lambda: write_best(run, parts, validation), "The best adapter was")
        return found

    trackers = parts.trackers if leads else []
    ranks, pinned = (distributed.rank(), distributed.ranks()), parts.device.type == "cuda"
    read = loader(parts.pairs, order, parts.base.tokenizer, parts.workers, *ranks, pinned=pinned)
    with (
        failures.explaining(explained),
        closing(failures.batches(read)) as batches,
        tracked(trackers, run, recipe, step) as track,
    ):

        def log(step: int, metrics: dict[str, Any]) -> None:
            failures.tried(lambda: track(step, metrics), "The last lines of metrics.jsonl were")

        validate()
        waited = Waited(batches)
        for batch in ahead(map(distributed.exchange, waited), parts.device):
            if validation is not None and validation.exhausted:
                break
            if _count_broken(broken, batch["broken"], recipe.data.broken_images) and leads:
                failures.tried(lambda: write_data(run, parts, broken), "data.json was")
            lr = learning_rate(
                step,
                steps=order.steps,
                peak=o.lr,
                warmup_steps=o.warmup_steps,
                final=o.final_lr,
                added=o.add_final_lr,
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
            pairs += len(batch["groups"])
            logs = step % log_every == 0 or step == order.steps
            if logs or not used:
                used = memory.peak(parts.device)
            metrics = {
                "steps": order.steps,
                "loss": sum(recent) / max(1, len(recent)),
                "lr": lr,
                "start_share": attached.start_share,
                "seconds": round(before + time.monotonic() - start, 3),
                "pairs_per_second": round(pairs / (time.monotonic() - since), 2),
                "data_wait_share": round(waited.share(), 4),
                **used,
            }
            if logs:
                log(step, metrics)
                recent.clear()
                since, pairs = time.monotonic(), 0
                waited.restart()
            scored = validate()
            since += scored.get("validation_seconds", 0.0)
            waited.exclude(scored.get("validation_seconds", 0.0))
            if leads and (advice := waited.advice(parts.workers)):
                warnings.warn(advice, stacklevel=2)
            if leads:
                on_step({"step": step, **metrics, **scored})
            if step < order.steps:
                interrupt()
                if time.monotonic() - saved > recipe.checkpoints.every_seconds:
                    failures.tried(save_checkpoint, f"The state after step {step} was")
                    saved = time.monotonic()
        if leads:
            if validation is not None:
                write_best(run, parts, validation)  # again, if the disk was full when it was found
            write_adapter(run, parts, step)
    if leads:
        runs.remove_folder(run.checkpoints)


def _count_broken(broken: set[str], found: list[str], limit: int) -> bool:
    """Whether any is new."""
    before = len(broken)
    for message in found:
        if message not in broken and limit and distributed.leads():
            print(f"skipped: {message}", file=sys.stderr)
        broken.add(message)
    check_broken(sorted(broken), limit, "data.broken_images")
    return len(broken) > before
