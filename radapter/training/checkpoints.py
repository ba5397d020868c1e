"""State to resume from: written atomically, checked when read, the last few kept."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from radapter.errors import BrokenInput
from radapter.files import file_hash, new_folder, remove_folder, write_atomic
from radapter.objectives.terms import Term

OLDER = ("adapter.", "factors.")
"""What `trained.` was called in the state of R-Adapter and LoRA"""


@dataclass(frozen=True)
class Checkpoint:
    """All that training goes on from after an interruption."""

    step: int
    """Optimizer steps done"""
    seconds: float
    """Time that these steps took, over all sessions"""
    method: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    scaler: dict[str, Tensor] = field(default_factory=dict)
    """Of the gradients, in fp16"""
    session: dict[str, Any] = field(default_factory=dict)
    """What the loop itself remembers, for JSON: see `training.loop`"""
    queue: dict[str, Tensor] = field(default_factory=dict)
    """Of the terms of the loss: `<term number>/<name>`"""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The adapter with the best validation so far"""
    of: dict[str, Any] = field(default_factory=dict)
    """What it is of, for JSON: see `training.resuming`; empty if an older version wrote it"""


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write `step-N/`, point `newest` at it, and remove all but the last `keep`.

    Those of later steps go, too: a run resumes from an earlier step only because they were damaged.
    """
    name = f"step-{checkpoint.step:08d}"
    with new_folder(folder / name) as path:
        tensors = {f"method/{key}": value for key, value in checkpoint.method.items()}
        tensors |= {f"optimizer/{key}": value for key, value in checkpoint.optimizer.items()}
        tensors |= {f"scaler/{key}": value for key, value in checkpoint.scaler.items()}
        tensors |= {f"queue/{key}": value for key, value in checkpoint.queue.items()}
        tensors |= {f"best/{key}": value for key, value in checkpoint.best.items()}
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_file(contiguous, path / "state.safetensors")
        facts = {
            "schema_version": 1,
            "step": checkpoint.step,
            "seconds": checkpoint.seconds,
            "session": checkpoint.session,
            "of": checkpoint.of,
            "sha256": file_hash(path / "state.safetensors"),
        }
        (path / "state.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_atomic(folder / "newest", name + "\n")
    kept = [path for path in _all(folder) if path.name <= name][-keep:]
    for other in _all(folder):
        if other not in kept:
            remove_folder(other)


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, 0 if there is none; whether it is whole, `load` finds."""
    return max((int(path.name.removeprefix("step-")) for path in _all(folder)), default=0)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-" + 8 * "[0-9]"))


def load(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None if there is none at all.

    A damaged one is passed over with a warning; BrokenInput if every one is damaged.
    """
    found = _all(folder)
    for path in reversed(found):
        try:
            facts = json.loads((path / "state.json").read_text())
            if file_hash(path / "state.safetensors") != facts["sha256"]:
                raise ValueError("state.safetensors does not match its hash")
            tensors = load_file(path / "state.safetensors")
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"Checkpoint {path.name} is damaged ({error}): left aside.", stacklevel=2)
            continue
        names = ("method", "optimizer", "scaler", "queue", "best")
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            if part == "method" and key.startswith(OLDER):
                key = "trained." + key.partition(".")[2]
            parts[part][key] = tensor
        return Checkpoint(
            facts["step"],
            facts["seconds"],
            **parts,
            session=facts.get("session", {}),
            of=facts.get("of", {}),
        )
    if found:
        raise BrokenInput(f"Every checkpoint in {folder} is damaged: start a new run.")
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors: `<parameter number>/<name>`."""
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, for an optimizer made over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def queue_tensors(terms: Sequence[Term]) -> dict[str, Tensor]:
    """What the terms of the loss keep of the steps before: `<term number>/<name>`."""
    return {
        f"{number}/{name}": rows
        for number, term in enumerate(terms)
        if term.queue
        for name, rows in term.queue.kept.items()
    }


def load_queue(terms: Sequence[Term], tensors: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `queue_tensors` gave."""
    for key, rows in tensors.items():
        number, name = key.split("/")
        if queue := terms[int(number)].queue:
            queue.kept[name] = rows.to(device)
