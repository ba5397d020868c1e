"""What training starts from: the zero-shot head, what another run stored; and where no step changes
features of pictures, these."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radapter import distributed, merging
from radapter import recipe as recipes
from radapter import run as runs
from radapter.classes import key_of
from radapter.data import Dataset, same_pictures
from radapter.data.pairs import loader
from radapter.errors import BrokenInput, RadapterError, UsageError
from radapter.evaluation.encoding import Together, encode_set
from radapter.heads import head as heads
from radapter.heads import zero_shot
from radapter.models.frames import filled_up, which_frames
from radapter.models.joint import tower_alone
from radapter.recipe import Recipe
from radapter.registry import METHODS, folds
from radapter.registry import load as registered
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel, from_loaded
from radapter.training.preparing import Parts
from radapter.training.sizing import rows_of


def begin(parts: Parts) -> None:
    """Put the head, and what the method trains, where training starts. Nothing is trained yet.

    Raises:
        UsageError, BrokenInput: the run that it starts from is gone or does not fit the recipe.
    """
    recipe = parts.recipe
    if recipe.start is None and (before := _follows(recipe)):
        raise UsageError(
            f"Method {recipe.method.name} goes on from what a run of {before} has trained: set "
            "`start` to that run."
        )
    stored = _of_run(parts) if recipe.start is not None else {}
    if parts.head is not None:
        classes = zero_shot.prompts_of(parts.head.facts["classes"], parts.pairs.templates)
        weights = zero_shot.weights(_open(parts), classes)
        start = heads.Start(weights, parts.base.logit_scale, functools.partial(_examples, parts))
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(parts.recipe.seed)
            parts.attached.start_at(parts.head.begin(start))
    if not stored:
        return
    try:
        parts.attached.begin_at(stored)
    except ValueError as error:
        raise UsageError(
            f"start: {parts.recipe.start} changed {error}, which method "
            f"{parts.recipe.method.name} cannot go on from with these settings."
        ) from None


def found(recipe: Recipe) -> Recipe:
    """The recipe with the whole path of the run that it starts from.

    Raises:
        BrokenInput, UsageError: there is no such run, or it has not finished training.
    """
    if recipe.start is None:
        return recipe
    try:
        run = runs.find(Path(recipe.start).expanduser())
    except RadapterError as error:
        absent = isinstance(error, BrokenInput) and recipe.start in recipes.shipped()
        first = f" Type first: radapter train {recipe.start}" if absent else ""
        raise type(error)(f"start: {error}{first}") from None
    run.trained()
    return recipe.model_copy(update={"start": str(run.path.resolve())})


def _of_run(parts: Parts) -> dict[str, Tensor]:
    """What the run that training starts from stored, as this method takes it up."""
    recipe = parts.recipe
    run = runs.Run(Path(str(recipe.start)))
    facts, towers, head = merging.read_stored(run.trained())
    if facts["base_hash"] != parts.base_hash:
        raise UsageError(
            f"start: {run.path} was trained on {facts['base_model']} with hash "
            f"{facts['base_hash'][:16]}, and {recipe.model} has {parts.base_hash[:16]}: start from "
            "a run of the same base model."
        )
    if distributed.is_main_process() and _follows(recipe) != "inversion":  # which read texts alone
        _warn_if_seen(recipe, run)
    own = _head_of_run(parts.head, facts.get("head"), head, run.path)
    there, wanted = facts["method"], parts.method.model_dump(mode="json")
    if not parts.attached.modules and folds(there["name"]):  # the model's own weights are trained
        base = parts.base.model.state_dict()
        on_cpu = {name: tensor.detach().cpu() for name, tensor in base.items()}
        merged = registered(METHODS, there["name"]).merge(on_cpu, towers, 1.0)
        changed = {n: t for n, t in merged.items() if not torch.equal(t, on_cpu[n])}
        return {**changed, **own}
    if towers and there != wanted and _follows(recipe) != there["name"]:
        raise UsageError(
            f"start: {run.path} trained {there['name']}, and {wanted['name']} with these settings "
            "cannot go on from that: give the same `method`, or method.name=full."
        )
    _check_alike(run.path, there, wanted)
    _check_rows(run.path, facts.get("rows", {}), rows_of(parts.method, parts.pairs.dataset))
    return {**towers, **own}


def _check_alike(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """UsageError if two methods differ in a setting that both have, but for the average."""
    for key in wanted:
        if key in there and key not in ("name", "average") and there[key] != wanted[key]:
            raise UsageError(
                f"start: {path} was trained with method.{key}={there[key]}, and here it is "
                f"{wanted[key]}: {wanted['name']} goes on from that with the same."
            )


def _check_rows(path: Path, there: Mapping[str, list[str]], ours: Mapping[str, list[str]]) -> None:
    """UsageError if what was learned is of other classes or domains, or of them in another
    order."""
    for key, names in ours.items():
        before = there.get(key, names)
        for number, pair in enumerate(itertools.zip_longest(before, names, fillvalue="none")):
            if pair[0] != pair[1]:
                raise UsageError(
                    f"start: {path} has learned of other {key} than the data's: number {number} "
                    f"is '{pair[0]}' there and '{pair[1]}' here."
                )


def _follows(recipe: Recipe) -> str | None:
    """The method whose run the recipe's method goes on from, if it is another one."""
    found: str | None = getattr(registered(METHODS, recipe.method.name), "FOLLOWS", None)
    return found


def _warn_if_seen(recipe: Recipe, run: runs.Run) -> None:
    """Say where the run may have been trained on what this recipe holds out of the same data."""
    ours, theirs = recipe.data.held_out(), run.recipe().data.held_out()
    if recipe.validation is None and ours is not None and not same_pictures(ours, theirs):
        warnings.warn(
            f"start: {run.path} may have been trained on pictures that this recipe holds out, so "
            "scores on these can be too high: hold out the same in both (data.hold_out).",
            stacklevel=1,
        )


def _head_of_run(
    training: heads.Training | None,
    facts: Mapping[str, Any] | None,
    stored: Mapping[str, Tensor],
    path: Path,
) -> dict[str, Tensor]:
    if facts is None:
        return {}
    if training is None:
        raise UsageError(
            f"start: {path} has a head, and the recipe has none. Add head={{name: {facts['name']}}}"
        )
    ours = training.facts
    lost = set(map(key_of, facts["classes"])) ^ set(map(key_of, ours["classes"]))
    if lost:
        name = min(lost)
        whose = "the run's head" if name in map(key_of, facts["classes"]) else "the data"
        raise UsageError(
            f"start: the head of {path} is of other classes than the data's: only {whose} has "
            f"'{name}'."
        )
    differ = [key for key in ours if key != "classes" and facts.get(key) != ours[key]]
    if differ or facts["classes"] != ours["classes"]:
        what = f"head.{differ[0]}" if differ else "the order of its classes"
        raise UsageError(f"start: the head of {path} differs from the recipe's in {what}.")
    return {name: t for name, t in stored.items() if name.startswith(heads.TUNED)}


# ---------------------------------------------------------------- features of the pictures


def encode_once(parts: Parts) -> None:
    """Let pairs give features in place of pictures, where each step would compute the same; for
    a module that reads features of frames, those of each frame."""
    if parts.encodes_once and parts.pairs.transform is not torch.as_tensor:
        dataset = parts.pairs.dataset
        frames = dataset.frames if parts.attached.behind else None
        alone = None if frames is None else _FramesAlone(parts.base.model, frames)
        parts.pairs.dataset = encoded(dataset, _open(parts), alone)
        parts.pairs.transform = torch.as_tensor
        parts.workers = 0  # there is nothing to read


def _examples(parts: Parts, passes: int) -> heads.Examples:
    """The training pictures: see `Start.examples`."""
    augmented = _augmented(parts, passes) if passes else None
    encode_once(parts)
    dataset = parts.pairs.dataset
    if parts.pairs.transform is not torch.as_tensor:  # they are augmented in the steps
        dataset = encoded(dataset, _open(parts))
    assert parts.head is not None
    features, labels = examples(dataset, parts.head.facts["classes"], parts.base.config)
    return (features if augmented is None else augmented), labels


def _augmented(parts: Parts, passes: int) -> Tensor:
    """The mean of each picture's features when it is changed at random so many times, unit norm,
    [n, dim]; 0 of one that cannot be read. No epoch of training has the same changes."""
    pairs, model = parts.pairs, _open(parts)
    total = torch.zeros(len(pairs), parts.base.config["model_cfg"]["embed_dim"])
    items = torch.arange(len(pairs)).split(BATCH)
    order: Any = [
        [(-number, int(i)) for i in own] for number in range(1, passes + 1) for own in items
    ]
    read = loader(pairs, order, parts.base.tokenizer, parts.workers)
    for own, batch in zip(items * passes, read, strict=True):
        if len(batch["images"]):
            pixels = parts.pixels(batch["images"].to(parts.device))
            total[own[batch["places"]]] += Together([model.runtime]).encode_image(pixels).cpu()
    return torch.nn.functional.normalize(total, dim=-1)


def unreadable(parts: Parts) -> list[str]:
    """Messages about the training pictures that cannot be read, where no step reads them."""
    messages = []
    for number in range(0 if parts.trained else len(parts.pairs.dataset)):
        try:
            parts.pairs.dataset.read(number)
        except BrokenInput as error:
            messages.append(str(error))
    return messages


def examples(dataset: Dataset, names: Sequence[str], config: Mapping[str, Any]) -> heads.Examples:
    """Features of all pictures, and the places of their classes among the names; -1 of a picture
    that cannot be read or is of another class.

    Args:
        dataset: what `encoded` gives.
        config: of the model.
    """
    place = {key_of(name): number for number, name in enumerate(names)}
    features = torch.zeros(len(dataset), config["model_cfg"]["embed_dim"])
    labels = torch.full((len(dataset),), -1)
    for number, label in enumerate(dataset.labels):
        with contextlib.suppress(BrokenInput):
            features[number] = torch.as_tensor(dataset.read(number))
            labels[number] = place.get(key_of(dataset.class_names[label]), -1)
    return features, labels


def encoded(dataset: Dataset, model: OpenModel, alone: _FramesAlone | None = None) -> Dataset:
    """The data set with features [dim] in place of pictures; with `alone` those that it gives in
    place of clips, [frames, dim]. Several ranks share the work."""
    places = [(key, dataset, index) for index, key in enumerate(dataset.keys)]
    runtime: Any = alone or model.runtime
    (features,), broken = encode_set(
        [runtime], model.preprocess, model.preprocessing, places, batch_size=BATCH, cache=None
    )
    good = iter(features if alone is None else map(alone.of_clip, features))
    rows = [broken.get(key) or next(good) for key in dataset.keys]
    return dataclasses.replace(dataset, read=functools.partial(_row, rows))


class _FramesAlone:
    """In the place of a runtime: clips [n, frames, 3, height, width] -> what the image tower gives
    for each frame, [n, most * dim], without what stands behind it; NaN for a frame that is none."""

    identity = None

    def __init__(self, model: nn.Module, most: int) -> None:
        self.model, self.most = model, most

    def of_clip(self, row: Tensor) -> Tensor:
        """[most, dim] of a row of these."""
        return row.unflatten(0, (self.most, -1))

    @torch.no_grad()
    def encode_video(self, clips: Tensor) -> Tensor:
        filled = filled_up(clips.to(next(self.model.parameters()).device), self.most)
        found = tower_alone(self.model, filled.nan_to_num(0.0).flatten(0, 1)).float()
        found = found.unflatten(0, filled.shape[:2])
        there = which_frames(filled)[:, :, None]
        return found.masked_fill(~there, torch.nan).flatten(1)


def _row(rows: list[Any], index: int) -> Any:
    if isinstance(rows[index], str):
        raise BrokenInput(rows[index])
    return rows[index]


def _open(parts: Parts) -> OpenModel:
    return from_loaded(parts.base, device=str(parts.device))
