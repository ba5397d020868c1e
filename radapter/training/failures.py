"""What goes wrong while training: what is kept, and what the user is told."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch.utils.data import DataLoader

from radapter import distributed, files
from radapter import run as runs
from radapter.errors import (
    BrokenInput,
    GateFailed,
    MissingDependency,
    RadapterError,
    ran_out_of_memory,
)
from radapter.training import checkpoints
from radapter.training.preparing import Parts

NOT_WRITTEN = (OSError, SafetensorError)
INTERRUPTED = 130
BAD_BATCH = "bad_batch.json"


class NotFinite(Exception):
    """The loss or the gradients of a step are not finite; nothing of the step was kept."""


# ---------------------------------------------------------------- steps that are left out


def leave_out(
    error: NotFinite, run: runs.Run, parts: Parts, step: int, bad: list[dict[str, Any]]
) -> None:
    """Leave out a step whose loss or gradients are not finite: append it to `bad`, the run of such
    steps, and write these to bad_batch.json with the names of their pictures and texts.

    Raises:
        GateFailed: they are as many as `optimisation.stop_after_bad_steps`.
    """
    bad.append({"step": step + 1, "problem": str(error), "pairs": _pairs(parts, step)})
    path = run.path / BAD_BATCH
    content = json.dumps({"schema_version": 1, "steps": bad}, indent=1) + "\n"
    if distributed.is_main_process():
        best_effort(lambda: files.write_atomic(path, content), f"{path.name} was")
    message = f"{error} in step {step + 1}. That step was left out. Its batch is in {path}."
    limit = parts.recipe.optimisation.stop_after_bad_steps
    if len(bad) < limit:
        warnings.warn(f"{message} Training goes on; {limit} in a row stop it.", stacklevel=2)
        return
    number = f" These were {limit} in a row." if limit > 1 else ""
    raise GateFailed(
        f"{message}{number} Look at its pictures and texts, or try a smaller optimisation.lr."
    )


def _pairs(parts: Parts, step: int) -> list[dict[str, str]]:
    pairs, found = parts.pairs, []
    for _, item in next(iter(parts.order(start_step=step))):
        if item >= len(pairs):
            assert parts.unlabelled is not None
            key = parts.unlabelled.dataset.keys[item - len(pairs)]
            found.append({"unlabelled picture": key})
            continue
        index, text = pairs.items[item]
        what = (
            {"class": pairs.dataset.class_names[pairs.dataset.labels[index]]}
            if pairs.classify
            else {"text": text}
        )
        found.append({"picture": pairs.dataset.keys[index], **what})
    return found


# ---------------------------------------------------------------- writing


def best_effort(write: Callable[[], None], what: str) -> bool:
    """Write best-effort: an OSError becomes a warning and training continues. True if written."""
    try:
        write()
    except NOT_WRITTEN as error:
        warnings.warn(f"{what} not written: {_reason(error)}. Training goes on.", stacklevel=2)
        return False
    return True


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return str(error)


# ---------------------------------------------------------------- workers


def batches(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """The loader's batches; that a worker died is noticed between two steps, never within one.

    torch's handler of SIGCHLD raises wherever the process is: half-way through an update of the
    weights there would be no state to save.

    To be closed. The workers end with it: they take no SIGTERM, so a process that ends with an
    error, which keeps the iterator, would wait for them for ever.
    """
    iterator: Any = iter(loader)  # sets the handler
    if not loader.num_workers:
        yield from iterator
        return
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        for batch in iterator:
            if main:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            yield batch
            if main:
                signal.signal(signal.SIGCHLD, handler)
    finally:
        if main:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        iterator._shutdown_workers()  # what its __del__ does
        if main:
            signal.signal(signal.SIGCHLD, handler)


# ---------------------------------------------------------------- the last words


@contextlib.contextmanager
def raising_instead(explained: Callable[[Exception], Exception]) -> Iterator[None]:
    """Raise what `explained` makes of an error; an interruption is raised as it is."""
    try:
        yield
    except Exception as error:
        if getattr(error, "exit_code", None) == INTERRUPTED:
            raise
        better = explained(error)
        if better is error:
            raise
        raise better from error


def explained(
    error: Exception,
    run: runs.Run,
    parts: Parts,
    step: int,
    save: Callable[[], None] | None,
    *,
    scoring: bool = False,
) -> Exception:
    """The error to leave training with: what happened, what to try, where a resumed run starts.

    Args:
        step: how many steps are whole.
        save: saves the state after them; None if the error came from within the next step, so that
            weights or averages may be half-way, or be what is wrong.
        scoring: whether held-out data was being scored.
    """
    if save is not None and step and checkpoints.newest(run.checkpoints) != step:
        best_effort(save, f"The state after step {step} was")
    if isinstance(error, RadapterError):
        kind, problem, details = type(error), str(error), error.details
    elif ran_out_of_memory(error):
        # A GPU's memory runs out by the step, even while the next pictures are copied to it.
        reading = save is not None and not isinstance(error, torch.OutOfMemoryError)
        kind, details = MissingDependency, {} if reading or scoring else _sizes(parts)
        if scoring:
            problem = _memory_of_validation(parts)
        else:
            problem = _memory_of_data(parts) if reading else _memory_of_step(parts, step, details)
    elif dead := dead_worker(error):
        kind, problem, details = MissingDependency, _worker_lost(dead, parts), {}
    elif isinstance(error, NOT_WRITTEN) and not isinstance(error, BrokenPipeError):
        steps = parts.order().steps
        kind, details = BrokenInput, {}
        problem = f"{_reason(error)}. Training stopped after step {step} of {steps}."
    elif isinstance(error, dist.DistError):
        kind, problem, details = distributed.RankLost, f"Another rank stopped: {error}", {}
    else:
        return error
    last = checkpoints.newest(run.checkpoints)
    whence = f"from step {last}" if last else "from the start"
    return kind(
        f"{problem}\nTo go on {whence}, type: {resuming(run)}",
        {"run": str(run.path), "step": last, **details},
    )


def resuming(run: runs.Run) -> str:
    """The command that goes on with a run, on as many devices."""
    ranks = distributed.world_size()
    return f"radapter train --resume {run.path}" + (f" --devices {ranks}" if ranks > 1 else "")


def _sizes(parts: Parts) -> dict[str, Any]:
    """The batch size, the micro batch, and the setting to try next."""
    batch, micro = parts.order().batch_size, parts.recipe.optimisation.micro_batch
    own = math.ceil(batch / distributed.world_size())
    smaller = min(micro or own, own) // 2
    if smaller:
        following = f"optimisation.micro_batch={smaller}"
    elif not parts.recipe.activation_checkpointing:
        following = "activation_checkpointing=true"
    else:
        following = "a smaller model" if parts.recipe.precision != "fp32" else "precision=bf16"
    return {"batch_size": batch, "micro_batch": micro, "try": following}


def _where(following: str) -> str:
    """Where a setting to try may be set: a resumed run keeps most of its settings."""
    same = following.startswith(("optimisation.micro_batch", "activation_checkpointing"))
    return "for a new run, or in this run's recipe.yaml" if same else "for a new run"


def _memory_of_step(parts: Parts, step: int, sizes: dict[str, Any]) -> str:
    return (
        f"Out of memory on {parts.device} in step {step + 1}, with optimisation.batch_size "
        f"{sizes['batch_size']} and micro_batch {sizes['micro_batch'] or 'none: all at once'}. "
        f"Next to try: {sizes['try']}, {_where(sizes['try'])}. (micro_batch leaves the result as "
        "it is; a smaller batch_size changes the loss.)"
    )


def _memory_of_data(parts: Parts) -> str:
    workers = parts.workers
    following = f"workers={workers // 2}" if workers else "a machine with more of it"
    return (
        f"Out of memory while pictures were read by {workers or 'no'} workers. Next to try: "
        f"{following}, for a new run, or in this run's recipe.yaml."
    )


def _memory_of_validation(parts: Parts) -> str:
    return (
        f"Out of memory on {parts.device} while held-out data was scored, which takes two more "
        "copies of the model's weights. Next to try: monitor={}, which scores nothing, for a new "
        "run, or in this run's recipe.yaml."
    )


def dead_worker(error: Exception) -> str | None:
    """`pid 7, what became of it`, if the loader's error is that a worker died."""
    found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)", str(error))
    if not isinstance(error, RuntimeError) or not found:
        return None
    return f"pid {found[1]}, {found[2].strip()}"


def _worker_lost(dead: str, parts: Parts) -> str:
    return (
        f"A worker that reads pictures, {dead}. Most often memory ran out (the system's log says "
        "so), or shared memory did: /dev/shm, which containers keep small (docker run --shm-size). "
        f"Next to try: workers={parts.workers // 2}, for a new run, or in this run's "
        "recipe.yaml."
    )
