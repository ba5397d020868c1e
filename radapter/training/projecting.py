"""TPGM of a run: its radii are learned on the recipe's held-out data."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from radapter.data import open_data
from radapter.data.clips import prepared
from radapter.data.dataset import check_broken
from radapter.data.pairs import BatchOrder, Pairs, loader
from radapter.data.scored import among
from radapter.errors import BrokenInput, UsageError
from radapter.heads.head import Head
from radapter.merging import Trained, tpgm, write_weights
from radapter.merging.deltas import State, changed
from radapter.models import LoadedModel
from radapter.objectives import contrastive, cross_entropy
from radapter.objectives.terms import Batch, Term
from radapter.precision import exact_fp32
from radapter.processors import readers
from radapter.recipe import Recipe
from radapter.run import Run
from radapter.training.gradients import gradients

LOSSES = "mpm-nce", "cross-entropy"


def merge_by_tpgm(
    run: Run,
    trained: Trained,
    *,
    norm: tpgm.Norm = "mars",
    steps: int = tpgm.STEPS,
    device: str = "cpu",
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, bool]:
    """Write `merged/tpgm/`, or `merged/tpgm-l2/`, and make it the run's present model.

    Args:
        run: locked, as it is written into.
        trained: what it has learned.
        norm: see `radapter.merging.tpgm`.
        steps: how many batches of held-out data radii are trained on.
        device: `cpu`, `cuda`, or `auto`.
        on_step: called with steps done and steps in all.

    Returns:
        The folder, and whether it was written (False: it was there already, whole).

    Raises:
        UsageError: the method does not fold, the run changed no weights of the towers, or the
            recipe has no held-out data.
    """
    recipe = run.recipe()
    base = trained.base.model.state_dict()
    whole = trained.at(1.0)
    moved = changed(base, whole)
    if not moved:
        raise UsageError(
            f"{run.name} changed no weights of the towers, so there is nothing that tpgm could "
            "limit: merge by --rule interpolate."
        )
    with exact_fp32():
        terms = held_out_terms(recipe)
        gradient = held_out_gradient(
            recipe, trained.base, head=trained.head_at(1.0), steps=steps, device=device
        )
        state, facts = tpgm.project(base, moved, gradient, norm=norm, steps=steps, on_step=on_step)
    data = recipe.validation_data()
    assert data is not None
    about = {
        "alpha": 1.0,
        "rule": "tpgm",
        **facts,
        "loss": " + ".join(terms),
        "data": data.in_words(),
    }
    name = "tpgm" if norm == "mars" else f"tpgm-{norm}"
    return write_weights(run, trained, {**whole, **state}, name, about)


def held_out_terms(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The terms whose loss on held-out data trains radii, with their settings: those of the recipe
    that tell right from wrong. Without one of them it is MPM-NCE."""
    return {name: own for name, own in recipe.terms() if name in LOSSES} or {LOSSES[0]: {}}


def held_out_gradient(
    recipe: Recipe,
    base: LoadedModel,
    *,
    head: Head | None = None,
    steps: int,
    device: str = "cpu",
) -> Callable[[State], State]:
    """From weights to the gradient of the loss of `held_out_terms` for them, each time on the next
    batch of the recipe's held-out data, at most `steps` times.

    Pictures are prepared as for scoring, without augmentation. The head stays as it is; pictures of
    classes that it does not know are left out.

    Raises:
        UsageError: the recipe has no held-out data.
        BrokenInput: that is missing or damaged, or has fewer than two pairs.
    """
    settings = recipe.validation_data()
    if settings is None:
        raise UsageError(
            "This needs held-out data of the training distribution: set data.hold_out (such as "
            "0.1) or a `validation` section in the recipe, and train again."
        )
    dataset = open_data(settings)
    if head is not None:
        dataset = among(dataset, head.names)
    transform = functools.partial(prepared, base.preprocess)
    pairs = Pairs(dataclasses.replace(dataset, read_anew=None), settings, transform, recipe.seed)
    if len(pairs) < 2:
        raise BrokenInput(f"{dataset.source} has {len(pairs)} pair: two are needed at least.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.device(device)
    size = min(recipe.optimisation.batch_size, len(pairs))
    order = BatchOrder(len(pairs), size, math.ceil(steps / (len(pairs) // size)), recipe.seed)
    workers = readers(len(pairs), where.type) if recipe.workers == "auto" else recipe.workers
    read = loader(pairs, order, base.tokenizer, workers)
    terms: list[Term] = []
    for name, own in held_out_terms(recipe).items():
        if name == LOSSES[0]:
            terms.append(contrastive.term(None, **own))
        else:
            assert head is not None  # the recipe has one, or was refused
            module = copy.deepcopy(head.module).to(where)
            terms.append(cross_entropy.of_head(module, head.names, **own))
    model = copy.deepcopy(base.model).to(where).eval().requires_grad_(False)
    parameters = dict(model.named_parameters())

    def whole(batches: Iterator[Batch]) -> Iterator[Batch]:
        broken: set[str] = set()
        for batch in batches:
            broken |= set(batch["broken"])
            check_broken(sorted(broken), settings.broken_images, "validation.broken_images")
            if len(batch["groups"]) > 1:
                yield batch

    batches = whole(iter(read))

    def gradient(state: State) -> State:
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].requires_grad_(True).copy_(value)
                parameters[name].grad = None
        gradients(
            model,
            next(batches),
            terms,
            device=where,
            micro_batch=recipe.optimisation.micro_batch,
        )
        found = {name: parameters[name].grad for name in state}
        return {
            name: torch.zeros_like(state[name]) if own is None else own.cpu()
            for name, own in found.items()
        }

    return gradient
