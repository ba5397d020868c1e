"""One run of several: what they have changed, combined by a rule, in a run folder like any other.

The folder holds the combined weights as those of a fully fine-tuned model, `soup.json` with what it
was made of, and the recipe and the classes of the first run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from radapter import recipe as recipes
from radapter import run as runs
from radapter.data import same_pictures
from radapter.errors import UsageError
from radapter.files import facts_metadata, file_hash
from radapter.heads import head as heads
from radapter.merging.deltas import State, changed
from radapter.merging.trained import Trained, open_trained
from radapter.models import with_head
from radapter.recipe import Recipe
from radapter.registry import RULES, folds, load
from radapter.run import Run, Which


def soup(
    ingredients: Sequence[Run],
    rule: str,
    *,
    alpha: float | None = None,
    which: Which = "last",
    root: Path = runs.DEFAULT_ROOT,
    scorer: Callable[[Trained, float], Callable[[State], float]] | None = None,
    **settings: Any,
) -> Run:
    """Average the merged changes of runs, and write the result as a new run.

    Args:
        ingredients: finished runs; the recipe and the classes of the first are the soup's.
        rule: a name of `registry.RULES` that has `combine`.
        alpha: of the soup's recipe: what `merge` scales the changes by, and what a rule scores at.
            None: the rule's, else that of the first run's recipe.
        which: the runs' adapter after the last step, or the best by validation.
        root: the folder that run folders are made in.
        scorer: makes, of the first run and alpha, what a rule scores weights by.
        settings: of the rule.

    Raises:
        UsageError: there are fewer than two runs, or they do not go together.
        BrokenInput: a run has not finished training, or is damaged.
    """
    check_together(ingredients)
    combine = load(RULES, rule)
    recipe = ingredients[0].recipe()
    alpha = alpha if alpha is not None else getattr(combine, "ALPHA", recipe.alpha)
    first, tuned = _open(ingredients, which)
    base = with_head(first.base.model.state_dict(), first.head_at(0.0))
    if scorer is not None:
        settings["score"] = scorer(first, alpha)
    state, facts = combine.combine(base, tuned, **settings)
    settings.pop("score", None)
    about = {
        "schema_version": 1,
        "rule": rule,
        **settings,
        "alpha": alpha,
        "runs": [_about(run, which) for run in ingredients],
        "same_held_out": _same_held_out(ingredients),
        **facts,
    }
    return _write(
        ingredients[0], _recipe(recipe, rule, len(tuned), alpha), first, state, about, root
    )


def check_together(ingredients: Sequence[Run]) -> None:
    """Refuse runs that nothing can be averaged of, before any model is opened.

    Raises:
        UsageError: there are fewer than two runs, one is named twice, the method of one does not
            fold into plain weights, or they were trained on other classes.
    """
    if len(ingredients) < 2:
        raise UsageError("A soup is of two runs or more: name another run.")
    names = [run.name for run in ingredients]
    for run in ingredients:
        if names.count(run.name) > 1:
            raise UsageError(f"{run.name} is named twice: name each run of a soup once.")
        method = run.recipe().method.name
        if not folds(method):
            raise UsageError(
                f"What {method} trains does not fold into plain weights, so {run.name} cannot be "
                "averaged with other runs."
            )
    first = ingredients[0]
    for other in ingredients[1:]:
        if first.class_names() != other.class_names():
            raise UsageError(
                f"{first.name} and {other.name} were not trained on the same classes in the same "
                "order: a soup is of runs that were."
            )
        if first.recipe().head != other.recipe().head:
            raise UsageError(
                f"{first.name} and {other.name} differ in `head`: a soup is of runs with the same."
            )


def _open(ingredients: Sequence[Run], which: Which) -> tuple[Trained, list[State]]:
    """The first run with its base model, and of each the merged weights that are not the base's,
    those of its head too."""
    first: Trained | None = None
    tuned: list[State] = []
    for run in ingredients:
        trained = open_trained(run, which)
        if not heads.mixed_whole(trained.head):
            raise UsageError(
                f"The head of {run.name}, {trained.facts['head']['name']}, cannot be averaged: a "
                "soup is of runs without a head, or with `head: {name: linear}`."
            )
        if first is None:
            first = trained
        elif trained.base.weights_hash != first.base.weights_hash:
            raise UsageError(
                f"{run.name} starts from other weights than {ingredients[0].name} "
                f"({trained.facts['base_model']} and {first.facts['base_model']}): a soup is of "
                "runs with one base model."
            )
        elif trained.base.used_with != first.base.used_with:
            raise UsageError(
                f"{run.name} prepares its pictures in another way than {ingredients[0].name}: a "
                "soup is of runs with one preprocessing."
            )
        elif not _same_start(first.head, trained.head):
            raise UsageError(
                f"The head of {run.name} starts from other texts than that of "
                f"{ingredients[0].name}: a soup is of runs with the same data.templates."
            )
        base = with_head(first.base.model.state_dict(), first.head_at(0.0))
        tuned.append(changed(base, with_head(trained.at(1.0), trained.head_at(1.0))))
    assert first is not None
    return first, tuned


def _same_start(one: State, other: State) -> bool:
    """Whether two heads began as one zero-shot classifier, whose last digits depend on devices."""
    return all(
        torch.allclose(value, other[name], rtol=1e-3, atol=1e-3)
        for name, value in one.items()
        if name.startswith(heads.ZERO_SHOT)
    )


def _same_held_out(ingredients: Sequence[Run]) -> bool:
    """Whether all hold out the same: else one may have been trained on what the soup's recipe, that
    of the first run, holds out."""
    sections = [run.recipe().validation_data() for run in ingredients]
    whole = all((run.soup() or {}).get("same_held_out", True) for run in ingredients)
    return whole and all(same_pictures(section, sections[0]) for section in sections)


def _about(run: Run, which: Which) -> dict[str, Any]:
    recipe = run.recipe()
    return {
        "name": run.name,
        "recipe": recipe.name,
        "method": recipe.method.name,
        "seed": recipe.seed,
        "adapter": which,
        "sha256": file_hash(run.trained(which)),
    }


def _recipe(recipe: Recipe, rule: str, number: int, alpha: float) -> Recipe:
    """The first run's, with what it trained as whole weights."""
    tree = recipe.model_dump(mode="json") | {
        "name": f"{recipe.name}-{rule}",
        "description": f"{rule} soup of {number} runs",
        "method": {"name": "full"},
        "alpha": alpha,
    }
    return recipes.rooted(recipes.validate(Recipe, tree, "the recipe of the soup"))


def _write(
    first: Run, recipe: Recipe, trained: Trained, state: State, about: dict[str, Any], root: Path
) -> Run:
    known = ("base_model", "base_seed", "base_hash", "base_used_with", "head")
    facts = {
        "schema_version": 1,
        "method": recipe.method.model_dump(mode="json"),
        **{key: trained.facts[key] for key in known if key in trained.facts},
        "trained_parameters": sum(tensor.numel() for tensor in state.values()),
        "steps": None,
        "start_share": None,
    }

    def fill(folder: Path) -> None:
        if (classes := first.path / "classes.json").is_file():
            shutil.copyfile(classes, folder / classes.name)
        (folder / runs.SOUP).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        start = {n: t for n, t in trained.head.items() if n.startswith(heads.ZERO_SHOT)}
        whole = {**with_head({}, trained.head_at(0.0)), **state, **start}
        # Tensors of a head at alpha 0 share memory with those of its start.
        content = {name: tensor.contiguous().clone() for name, tensor in whole.items()}
        (folder / "adapter.safetensors").write_bytes(save(content, metadata=facts_metadata(facts)))

    return runs.create(recipe, root, fill)
