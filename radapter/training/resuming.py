"""What a checkpoint belongs to: a run goes on with the recipe, weights and data it began with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from radapter import run as runs
from radapter.data import Dataset
from radapter.errors import BrokenInput, UsageError
from radapter.names import to_bytes
from radapter.objectives.terms import Term
from radapter.recipe import Recipe, rooted
from radapter.training.checkpoints import Checkpoint
from radapter.training.preparing import Parts

MAY_CHANGE = (
    "name",
    "description",
    "workers",
    "device",
    "gpu",
    "compile",
    "activation_checkpointing",
    "optimisation.micro_batch",
    "optimisation.stop_after_bad_steps",
    "checkpoints",
    "trackers",
    "monitor.every_epochs",
    "monitor.every_steps",
    "monitor.early_stop",
    "alpha",
    "suites",
    "export",
    "data.data_root",
    "data.root",
    "data.path",
    "data.shards",
    "data.broken_images",
    "data.broken_rows",
    "data.listed_in",
    "data.class_names_in",
    "validation.data_root",
    "validation.root",
    "validation.path",
    "validation.shards",
    "validation.broken_images",
    "validation.broken_rows",
    "validation.listed_in",
    "validation.class_names_in",
    "unlabelled.data_root",
    "unlabelled.root",
    "unlabelled.path",
    "unlabelled.shards",
    "unlabelled.broken_images",
    "unlabelled.broken_rows",
    "unlabelled.listed_in",
    "unlabelled.class_names_in",
)
"""Settings, and sections, that may change before a run goes on. They do not change the result (but
for rounding), or concern what is done beside and after training. Data may have moved: its names,
classes and texts are compared instead of its place."""


def belonging(parts: Parts) -> dict[str, Any]:
    """What a checkpoint of this run is of, for JSON."""
    return {
        "recipe": _settings(rooted(parts.recipe)),
        "base_hash": parts.base_hash,
        "pairs": len(parts.pairs),
        "data": _data_hash(parts.pairs.dataset, parts.terms),
        **({"unlabelled": _data_hash(more.dataset)} if (more := parts.unlabelled) else {}),
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    tree = recipe.model_dump(mode="json")
    if recipe.monitor.wanted:  # scores at another alpha are not to be compared
        tree["monitor"]["alpha"] = recipe.alpha if (a := recipe.monitor.alpha) is None else a
    else:
        tree["monitor"].pop("alpha")
        tree.pop("validation")
    return tree


def _data_hash(dataset: Dataset, terms: Sequence[Term] = ()) -> str:
    """Of what is trained on, wherever it lies; a broken picture may have been mended."""
    dataset = dataclasses.replace(dataset, stamp=None)
    digest = hashlib.sha256(dataset.fingerprint().encode())
    for term in terms:
        if term.pool:
            digest.update(to_bytes(repr(term.pool)))
    return digest.hexdigest()


def check(checkpoint: Checkpoint, parts: Parts, run: runs.Run) -> None:
    """Refuse to go on from a checkpoint that is of something else.

    Those of older versions do not say what they are of: they have to fit in their tensors.

    Raises:
        UsageError: the run's recipe was changed in more than `MAY_CHANGE`; each setting is named.
        BrokenInput: the base model's weights or the training data are not what they were.
    """
    file = run.path / "recipe.yaml"
    new = f"start a new run with `radapter train {file}`"
    before, now = checkpoint.of, belonging(parts)
    if not before:
        if not _shapes(parts.attached.state()).items() <= _shapes(checkpoint.method).items():
            raise BrokenInput(
                f"Step {checkpoint.step} of {run.path} is of another model or method than "
                f"its recipe.yaml names: undo the change there, or {new}."
            )
        return
    changes = [
        f"{file}: {key} is {present}, and was {old}"
        for key, old, present in _changes(before["recipe"], now["recipe"])
    ]
    if changes:
        longer = any(": optimisation.epochs is" in line for line in changes)
        why = " (The learning rate falls towards the last step, so a longer run is another one.)"
        raise UsageError(
            "\n".join(changes)
            + f"\nStep {checkpoint.step} was trained as it was: put that back to go on, or "
            f"{new}.{why if longer else ''}"
        )
    if before["base_hash"] != now["base_hash"]:
        raise BrokenInput(
            f"{parts.recipe.model} has other weights than those that step {checkpoint.step} of "
            f"{run.path} was trained from: bring those back, or {new}."
        )
    if before["data"] != now["data"]:
        number = (
            "as many pairs, but other names, classes or texts"
            if before["pairs"] == now["pairs"]
            else f"{now['pairs']:,} pairs, and had {before['pairs']:,}"
        )
        raise BrokenInput(
            f"{parts.pairs.dataset.source} is not what step {checkpoint.step} of {run.path} was "
            f"trained on: it has {number}. Bring that back, or {new}."
        )
    if before.get("unlabelled") != now.get("unlabelled"):
        source = parts.unlabelled.dataset.source if parts.unlabelled else "no unlabelled data"
        raise BrokenInput(
            f"{source} is not the unlabelled data that step {checkpoint.step} of {run.path} was "
            f"trained on. Bring that back, or {new}."
        )


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _changes(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(key, old, new) of what differs; a setting that one of both does not know says nothing."""
    if key in MAY_CHANGE or before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        common = [name for name in before if name in now]
        return [
            c
            for name in common
            for c in _changes(before[name], now[name], f"{key}.{name}".strip("."))
        ]
    return [(key, before, now)]
