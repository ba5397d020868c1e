"""What training leaves in a run folder beside checkpoints and metrics."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from radapter import files
from radapter import run as runs
from radapter.data.accounts import FILE, read_accounts
from radapter.training.preparing import Parts
from radapter.training.sizing import rows_of
from radapter.training.validation import Validation
from radapter.versions import TRAINING, versions


def write_adapter(run: runs.Run, parts: Parts, steps: int) -> None:
    """adapter.safetensors; no time and no run id in it, so one seed gives one file."""
    if parts.pairs.classify:
        # Before the adapter: a run that has finished training has what `export` needs.
        names = parts.pairs.dataset.class_names
        prompts = [[t.replace("{}", name) for t in parts.pairs.templates] for name in names]
        classes = {"schema_version": 1, "names": names, "prompts": prompts}
        files.write_atomic(run.path / "classes.json", json.dumps(classes, indent=1) + "\n")
    facts = {"steps": steps, "start_share": parts.attached.start_share}
    files.write_atomic(run.adapter, _adapter(parts, parts.attached.stored(), facts))


def write_best(run: runs.Run, parts: Parts, validation: Validation) -> None:
    """best.safetensors, in the form of adapter.safetensors; none if nothing was scored yet."""
    record = validation.record
    if record.best is None:  # a run that goes on from before its first validation
        run.best.unlink(missing_ok=True)
        return
    facts = {**record.best, "steps": record.best["step"]}
    del facts["step"]
    files.write_atomic(run.best, _adapter(parts, record.adapter, facts))


def _adapter(parts: Parts, stored: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    facts = {
        "schema_version": 1,
        "method": parts.method.model_dump(mode="json"),
        "base_model": parts.recipe.model,
        "base_seed": parts.recipe.seed if parts.recipe.model.endswith(":random") else 0,
        "base_hash": parts.base_hash,
        "base_used_with": parts.base.used_with,
        "trained_parameters": sum(p.numel() for p in parts.trained),
        **facts,
    }
    if rows := rows_of(parts.method, parts.pairs.dataset):
        facts["rows"] = rows
    if parts.head is not None:
        facts["head"], stored = parts.head.facts, {**stored, **parts.head.stored()}
    return to_safetensors(stored, metadata=files.facts_metadata(facts))


def write_data(
    run: runs.Run,
    parts: Parts,
    broken: Collection[str] = (),
    unlabelled_broken: Collection[str] = (),
) -> None:
    """data.json: what is used of the data that is read, and what is left out of it, by reason.

    Args:
        broken: messages about pictures that could not be read, beside those that a run which was
            stopped found before.
        unlabelled_broken: the same of unlabelled pictures.
    """
    known = read_accounts(run.path)
    found = sorted({*known.get("broken", []), *broken})
    content: dict[str, Any] = {
        "schema_version": 1,
        "train": parts.pairs.dataset.account(found),
        "broken": found,
    }
    if parts.unlabelled is not None:
        more = sorted({*known.get("unlabelled_broken", []), *unlabelled_broken})
        content["unlabelled"] = parts.unlabelled.dataset.account(more)
        content["unlabelled_broken"] = more
    if parts.held_out is not None:
        ((_, tasks),) = parts.held_out.opened.items()
        content["validation"] = next(iter(tasks.values())).account()
    files.write_atomic(run.path / FILE, json.dumps(content, indent=1) + "\n")


def write_environment(run: runs.Run, precision: str) -> None:
    """Write environment.json: versions, platform, threads, the GPU, and what the towers compute
    in."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": versions(TRAINING),
    }
    files.write_atomic(run.path / "environment.json", json.dumps(facts, indent=2) + "\n")
