"""What unlabelled pictures a model was trained on has to do with those that it is scored on."""

from __future__ import annotations

from collections.abc import Iterable

from radapter.data.dataset import Dataset
from radapter.data.opening import open_data, open_unlabelled
from radapter.data.settings import Data
from radapter.errors import RadapterError, UsageError
from radapter.evaluation.suite import Suite, load_suite
from radapter.recipe import Recipe
from radapter.registry import TASKS, load


def open_checked(recipe: Recipe, suites: Iterable[Suite] | None = None) -> Dataset | None:
    """The recipe's unlabelled pictures, if nothing is chosen or tested on them; None if it has
    none.

    Args:
        suites: that the model is to be scored on. None: those that the recipe names.

    Raises:
        UsageError: some are held out, or are test data of a suite.
        BrokenInput, MissingDependency: see `open_unlabelled`.
    """
    if recipe.unlabelled is None:
        return None
    unlabelled = open_unlabelled(recipe.unlabelled)
    held_out = recipe.validation_data()
    if held_out is not None and (number := in_common(recipe, unlabelled, held_out)):
        raise UsageError(
            f"unlabelled: {number:,} of its pictures are held out, so settings would be chosen on "
            "pictures that were trained on. Hold out the same in both sections (`hold_out`, and "
            "`hold_out_by: hash`), or name other pictures."
        )
    for suite in map(load_suite, recipe.suites) if suites is None else suites:
        seen = test_data(suite, recipe, unlabelled)
        if seen:
            raise UsageError(
                f"unlabelled: it has test pictures of {', '.join(seen)} of the suite {suite.name}. "
                "Name other pictures, or take that suite out."
            )
    return unlabelled


def test_data(suite: Suite, recipe: Recipe, unlabelled: Dataset) -> list[str]:
    """The suite's data sets that have some of the recipe's unlabelled pictures."""
    kind = load(TASKS, suite.tasks[0]).DATA
    return [
        dataset.name
        for dataset in suite.for_recipe(recipe).datasets
        if dataset.role != "control"
        and any(
            in_common(recipe, unlabelled, data.model_copy(update={"task": kind}))
            for data in dataset.all_data()
        )
    ]


def in_common(recipe: Recipe, unlabelled: Dataset, other: Data) -> int:
    """How many of the recipe's unlabelled pictures another section has, by source and name. Copies
    that lie elsewhere are not found, and data that is not there has none."""
    assert recipe.unlabelled is not None
    if not other.overlaps(recipe.unlabelled):
        return 0
    try:
        return len({*unlabelled.keys} & {*open_data(other).keys})
    except RadapterError:
        return 0


def said(suite: Suite, recipe: Recipe) -> dict[str, str]:
    """`seen`: what the base model has seen of the suite, see `Suite.seen_by`, and of which of its
    data sets the recipe had unlabelled pictures, of whatever split."""
    found = suite.seen_by(recipe.model)
    if recipe.unlabelled is None:
        return found
    names = [
        dataset.name
        for dataset in suite.for_recipe(recipe).datasets
        if dataset.role != "control"
        and any(data.overlaps(recipe.unlabelled) for data in dataset.all_data())
    ]
    if not names:
        return found
    line = f"Training saw pictures of {', '.join(names)} without labels"
    try:
        test = test_data(suite, recipe, open_unlabelled(recipe.unlabelled))
    except RadapterError:  # it is not there any more
        test = []
    if test:
        line += f", test pictures of {', '.join(test)} among them"
    return {"seen": ". ".join([*found.values(), line])}
