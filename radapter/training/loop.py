"""The training loop: from a recipe to a run folder with an averaged adapter in it."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from radapter import distributed
from radapter import run as runs
from radapter.data.pairs import loader
from radapter.errors import BrokenInput
from radapter.models import weights_hash
from radapter.objectives.terms import trains
from radapter.precision import exact_fp32
from radapter.recipe import Recipe, rooted
from radapter.training import checkpoints, failures, resuming, searching, starting
from radapter.training.feeding import ahead
from radapter.training.files import write_adapter, write_best, write_environment
from radapter.training.preparing import Parts, device_of, prepare
from radapter.training.schedule import learning_rate
from radapter.training.session import Hooks, Session
from radapter.training.step import optimizer_step, training_mode
from radapter.training.tracking import tracked
from radapter.training.waiting import Waited


def train(recipe: Recipe, root: Path = runs.DEFAULT_ROOT, **hooks: Any) -> runs.Run:
    """Train what the recipe says and leave the averaged adapter in a new run folder.

    Args:
        recipe: a validated recipe.
        root: the folder that run folders are made in.
        hooks: see `Hooks`.

    Raises:
        BrokenInput, UsageError, MissingDependency: before anything is written.
        GateFailed: the loss is no longer finite.
        Interrupted: on `should_stop`.
    """
    given = Hooks(**hooks)
    with exact_fp32(), distributed.joined(device_of(recipe)):
        parts = prepare(starting.found(recipe))
        starting.begin(parts)
        main = distributed.is_main_process()
        path = str(runs.create(rooted(parts.recipe), root).path) if main else ""
        run = runs.Run(Path(distributed.all_gather_object(path)[0]))
        with _locked(run):
            if distributed.is_main_process():
                write_environment(run, parts.precision)
            _train(run, parts, given, None)
    return run


def resume(run: runs.Run, **hooks: Any) -> runs.Run:
    """Go on from the run's newest whole checkpoint; a finished run is left as it is. See `train`.

    On one machine's CPU the result is bit for bit that of a run that was never stopped.

    Raises:
        UsageError, BrokenInput: the recipe, weights or data are not what the checkpoint was trained
            with; see `training.resuming`.
    """
    given, recipe = Hooks(**hooks), run.recipe()
    if run.adapter.is_file():
        return run
    with exact_fp32(), distributed.joined(device_of(recipe)), _locked(run):
        distributed.wait_for_all()  # what was half-done is cleared
        parts = prepare(starting.found(recipe))
        checkpoint = checkpoints.load(run.checkpoints)
        if checkpoint is not None:
            resuming.check(checkpoint, parts, run)
        starting.begin(parts)
        _train(run, parts, given, checkpoint)
    return run


def _check_ranks(parts: Parts, checkpoint: checkpoints.Checkpoint | None) -> None:
    """BrokenInput if ranks would start from different things: their gradients would be added up."""
    if distributed.world_size() == 1:
        return
    facts = {
        "recipe": parts.recipe.model_dump_json(),
        "weights of the base model": parts.base_hash,
        "pictures": [
            [len(of), *of.dataset.keys[:1], *of.dataset.keys[-1:]]
            for of in (parts.pairs, parts.unlabelled)
            if of is not None
        ],
        "checkpoint": checkpoint.step if checkpoint else 0,
        "trained weights": weights_hash(
            checkpoint.method if checkpoint else parts.attached.state()
        ),
    }
    hashes = {what: hashlib.sha256(repr(of).encode()).hexdigest() for what, of in facts.items()}
    said = distributed.all_gather_object(hashes)
    differs = [what for what in facts if len({other[what] for other in said}) > 1]
    if differs:
        raise BrokenInput(
            f"The {len(said)} processes do not start from the same {' and '.join(differs)}: every "
            "machine has to see the same run folder, data and model."
        )


def _locked(run: runs.Run) -> AbstractContextManager[None]:
    """The run is the first rank's to write: the others only read."""
    return run.lock() if distributed.is_main_process() else nullcontext()


def _train(
    run: runs.Run, parts: Parts, hooks: Hooks, checkpoint: checkpoints.Checkpoint | None
) -> None:
    _check_ranks(parts, checkpoint)
    main = distributed.is_main_process()
    if main:
        hooks.on_start(run, parts.plan())
    starting.encode_once(parts)
    session, recipe = Session(run, parts, hooks, checkpoint), parts.recipe
    order, validation = parts.order(start_step=session.step), session.validation
    read = loader(
        parts.read, order, parts.base.tokenizer, parts.workers,
        distributed.rank(), distributed.world_size(), pinned=parts.device.type == "cuda",
    )  # fmt: skip
    training_mode(parts.base.model)
    with (
        failures.raising_instead(session.explained),
        closing(failures.batches(read)) as batches,
        tracked(parts.trackers if main else [], run, recipe, session.step) as session.track,
    ):
        session.note_broken(starting.unreadable(parts))
        session.validate()
        waited = Waited(batches)
        for batch in ahead(map(distributed.exchange, waited), parts.device):
            if validation is not None and validation.exhausted:
                break
            session.note_broken(batch["broken"], batch.get("unlabelled_broken", []))
            lr = _set_learning_rate(parts, session.step, order.steps)
            # Each step's draws depend on its number alone, so no generator state is stored.
            torch.manual_seed(recipe.seed * 1_000_003 + session.step)
            session.phase = "step"
            if trains(parts.terms, batch):
                try:
                    session.recent.append(optimizer_step(parts, batch))
                    session.bad.clear()
                except failures.NotFinite as error:
                    failures.leave_out(error, run, parts, session.step, session.bad)
            session.step += 1
            session.phase = "data"
            session.report(lr, len(batch["groups"]), waited)
            if session.step < order.steps:
                session.interrupt_if_asked()
                session.save_if_due()
        if main and validation is not None:
            write_best(run, parts, validation)  # again, if the disk was full when it was found
        searching.search(run, parts)
        if main:
            write_adapter(run, parts, session.step)
    if main:
        runs.remove_folder(run.checkpoints)


def _set_learning_rate(parts: Parts, step: int, steps: int) -> float:
    o = parts.recipe.optimisation
    lr = learning_rate(
        step,
        steps=steps,
        peak=o.lr,
        warmup_steps=o.warmup_steps,
        final=o.final_lr,
        added=o.add_final_lr,
    )
    for group in parts.optimizer.param_groups:  # some learn at a rate of their own
        group["lr"] = group["rate"] * lr
    return lr
