"""Scores of weights on held-out data of the training distribution: what a soup is chosen by."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import torch

from radapter.data import open_data
from radapter.errors import UsageError
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import held_out_suite, trained_metric
from radapter.heads import head as heads
from radapter.merging.deltas import State
from radapter.merging.trained import Trained
from radapter.models import LoadedModel, with_head
from radapter.recipe import Recipe
from radapter.run import Run
from radapter.runtimes.opened import from_loaded

Progress = Callable[[int, int], None]


def scorer(
    recipe: Recipe,
    trained: Trained,
    alpha: float,
    *,
    device: str = "cpu",
    on_progress: Progress = lambda done, total: None,
) -> Callable[[State], float]:
    """Scores weights: `trained_metric` of the base model, moved by alpha towards them.

    Args:
        recipe: whose held-out data is scored.
        trained: a run with its base model.
        alpha: 1 scores the weights as they are.
        on_progress: called with pictures done and pictures in all, of one score.

    Raises:
        UsageError: the recipe has no held-out data.
    """
    suite = held_out_suite(recipe, trained.classes)
    opened, metric = suite.open(), trained_metric(recipe)
    base = with_head(trained.base.model.state_dict(), trained.head_at(0.0))
    plain = dataclasses.replace(trained.base, model=copy.deepcopy(trained.base.model))

    def score(state: State) -> float:
        merged = {name: torch.lerp(base[name], state[name], alpha) for name in state}
        towers, own = heads.split({**base, **merged})
        plain.model.load_state_dict(towers)
        head = heads.mixed(trained.facts["head"], {**trained.head, **own}, 1.0) if own else None
        # A copy, without the hash of the last weights.
        model: LoadedModel = dataclasses.replace(plain, head=head)
        evaluated = evaluate(
            suite, from_loaded(model, device=device), opened=opened, on_progress=on_progress
        )
        return float(evaluated.sets["held-out"].metrics[metric].scores.mean())

    return score


def check_unseen(run: Run) -> None:
    """Refuse to choose by held-out data what a soup becomes whose runs hold out other pictures.

    Raises:
        UsageError: one of the averaged runs may have been trained on what this one holds out.
    """
    if not (run.soup() or {}).get("same_held_out", True):
        raise UsageError(
            f"{run.name} averages runs that hold out different pictures, so nothing can be chosen "
            "on these: give --alpha a number, or average runs with the same data.hold_out."
        )


def check_same_held_out(runs: Sequence[Run]) -> None:
    """Refuse runs of which one may have been trained on what another holds out.

    Raises:
        UsageError: one has no held-out data, or other pictures than the first.
        BrokenInput: the data is missing or damaged.
    """
    prints = []
    for run in runs:
        settings = run.recipe().validation_data()
        if settings is None:
            raise UsageError(
                f"{run.name} has no held-out data to score on: set data.hold_out (such as 0.1) or "
                "a `validation` section in its recipe, and train again."
            )
        prints.append(open_data(settings).fingerprint())
        if prints[-1] != prints[0]:
            raise UsageError(
                f"{run.name} holds out other pictures than {runs[0].name}, so one may have been "
                "trained on what the other is scored on: give both recipes the same held-out data, "
                "or take a rule that scores nothing."
            )
