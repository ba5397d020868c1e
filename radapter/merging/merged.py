"""The plain model of a run: written at an alpha, read back; and what a run deploys."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from radapter.errors import BrokenInput, UsageError, command
from radapter.files import new_folder, write_atomic
from radapter.heads import head as heads
from radapter.merging.trained import Alpha, Trained, open_trained
from radapter.models import LoadedModel, load, save, together, weights_hash, with_head
from radapter.models.ensemble import Ensemble
from radapter.registry import folds
from radapter.run import Run

MEMBERS = "members"
"""In the folder of a mixture, the folder with its models"""


def write_merged(run: Run, alpha: Alpha, trained: Trained | None = None) -> tuple[Path, bool]:
    """Write `merged/alpha-A/`, of the best adapter `merged/alpha-A-best/`, in open_clip's folder
    format and make it the run's present one. Of two alphas it is `merged/image-A-text-B/`; `alpha`
    of its facts is then the larger one, and `alphas` has both.

    Returns:
        The folder, and whether it was written (False: it was there already, whole).
    """
    trained = trained or open_trained(run, "last")
    if not isinstance(alpha, tuple):
        return write_weights(run, trained, trained.at(alpha), _in_name(alpha), {"alpha": alpha})
    image, text = alpha
    name = "-".join(_in_name(own, of) for own, of in ((image, "image"), (text, "text")))
    about = {
        "alpha": max(alpha),
        "alphas": {"image": image, "text": text},
        "rule": f"alpha {image:g} of images, {text:g} of texts",
    }
    return write_weights(run, trained, trained.at(alpha), name, about)


def write_weights(
    run: Run, trained: Trained, state: Mapping[str, Tensor], name: str, about: dict[str, Any]
) -> tuple[Path, bool]:
    """Write `merged/NAME/`, of the best adapter `merged/NAME-best/`; see `write_merged`.

    Args:
        state: the plain model's weights.
        about: what was done to get them, such as `alpha`, which the head is mixed at, unless
            `alphas` has that of the image tower.
    """
    head = trained.head_at(about["alphas"]["image"] if "alphas" in about else about["alpha"])

    def fill(folder: Path) -> None:
        save(folder, trained.base, state)
        if head is not None:
            heads.write(folder, head)

    about = {**about, "weights_hash": weights_hash(with_head(state, head))}
    return _write(run, trained, name, about, fill)


def write_mixture(
    run: Run, trained: Trained, mixture: LoadedModel, name: str, about: dict[str, Any]
) -> tuple[Path, bool]:
    """Write several models with the gate that mixes them: `members/0`, `members/1`, ..., each in
    open_clip's folder format, in `merged/NAME/`; see `write_weights`.

    Args:
        mixture: an ensemble with its head.
        about: what it is, with `alpha`, that of the tuned member.
    """
    head, models = mixture.head, cast(Ensemble, mixture.model).members
    assert head is not None

    def fill(folder: Path) -> None:
        for number, model in enumerate(models):
            own = folder / MEMBERS / str(number)
            own.mkdir(parents=True)
            save(own, trained.base, model.state_dict())
        heads.write(folder, head)

    about = {**about, "weights_hash": mixture.weights_hash}
    return _write(run, trained, name, about, fill)


def _write(
    run: Run, trained: Trained, name: str, about: dict[str, Any], fill: Callable[[Path], None]
) -> tuple[Path, bool]:
    best = trained.which == "best"
    known = {key: trained.facts[key] for key in ("method", "base_model", "base_hash")}
    facts = {"schema_version": 1, **about, **known, **({"adapter": "best"} if best else {})}
    folder = run.path / "merged" / f"{name}{'-best' if best else ''}"
    written = not _is_whole(folder, facts["weights_hash"])
    if written:
        with new_folder(folder) as temporary:
            fill(temporary)
            (temporary / "merged.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_atomic(folder.parent / "current", folder.name + "\n")
    return folder, written


def _in_name(alpha: float, of: str = "alpha") -> str:
    return f"{of}-{alpha:.2f}" if round(alpha, 2) == alpha else f"{of}-{alpha!r}"


def read_merged(run: Run) -> tuple[LoadedModel, dict[str, Any]]:
    """The run's present merged model and its facts (alpha, hashes).

    Raises:
        BrokenInput: there is none (the message names the command), or its weights have changed.
    """
    folder = run.merged()
    loaded, facts = load_merged(folder), run.merged_facts()
    expected = facts["weights_hash"]
    if loaded.weights_hash != expected:
        raise BrokenInput(
            f"{folder} does not have the weights that were merged (hash "
            f"{loaded.weights_hash[:16]}, expected {expected[:16]}): merge again."
        )
    return loaded, facts


def load_merged(folder: Path) -> LoadedModel:
    """A model folder with the head that lies in it, if one does; of a mixture all members."""
    numbers = sorted(int(p.name) for p in (folder / MEMBERS).glob("*") if p.name.isdecimal())
    members = [load(folder / MEMBERS / str(number)) for number in numbers]
    loaded = together(members, str(folder)) if len(members) > 1 else load(folder)
    return dataclasses.replace(loaded, head=heads.read(folder))


# ---------------------------------------------------------------- what a run deploys


def tuned(run: Run, *, sets: bool = False) -> tuple[LoadedModel, dict[str, Any]]:
    """The model that export, evaluation and prediction use, with its facts (method, alpha, hashes):
    the run's present merged one; or, where the method does not fold, the base model with its
    adapters attached, scaled by the recipe's alpha.

    Args:
        run: the run.
        sets: whether it is to answer whole test sets, as some mixtures only can.

    Raises:
        BrokenInput: there is none (the message names the command), or it is damaged.
        UsageError: it can only answer whole test sets.
    """
    if folds(run.recipe().method.name):
        if not sets and "transductive" in run.merged_facts():
            raise UsageError(
                f"{run.merged().name} fits its clusters on a test set's own pictures, so only "
                f"`radapter eval` can use it. For all else: "
                f"{command('merge', '--run', run.path, '--rule', 'dawin', '--clusters', 3)}"
            )
        return read_merged(run)
    trained, alpha = open_trained(run), run.recipe().alpha
    loaded = trained.attached(alpha)
    known = {key: trained.facts[key] for key in ("method", "base_model", "base_hash")}
    return loaded, {"alpha": alpha, **known, "weights_hash": loaded.weights_hash}


def tuned_facts(run: Run) -> dict[str, Any]:
    """Its facts alone; a merged model is not loaded for them."""
    return run.merged_facts() if folds(run.recipe().method.name) else tuned(run)[1]


def tuned_name(run: Run) -> str:
    """Its name in the run, such as `alpha-0.50`.

    Raises:
        BrokenInput: there is none; the message names the command.
    """
    recipe = run.recipe()
    if folds(recipe.method.name):
        return run.merged().name
    run.trained()
    return _in_name(recipe.alpha)


def tuned_title(run: Run, facts: Mapping[str, Any]) -> str:
    """The run and what it deploys, such as `my-run, alpha 0.5`."""
    how = facts.get("rule", f"alpha {facts['alpha']:g}")
    return f"{run.name}, {how}"


def _is_whole(folder: Path, expected: str) -> bool:
    try:
        return load_merged(folder).weights_hash == expected
    except BrokenInput:
        return False
