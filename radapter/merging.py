"""From (run, alpha) to a model: plain and of the original size, or with its adapters attached."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from radapter.errors import BrokenInput, UsageError
from radapter.files import new_folder, radapter_facts, write_atomic
from radapter.models import LoadedModel, conventions, load, save, weights_hash
from radapter.registry import METHODS, folds, schema
from radapter.registry import load as registered
from radapter.run import Run, Which


@dataclass
class Trained:
    """What a run has learned, with the base model that it belongs to."""

    base: LoadedModel
    facts: dict[str, Any]
    """Metadata of adapter.safetensors: method, base model and hash, steps, EMA share"""
    tensors: dict[str, Tensor]
    which: Which = "last"
    classes: list[str] | None = None
    """The names of those that were trained, if any were"""

    def at(self, alpha: float) -> dict[str, Tensor]:
        """The state dict of the plain model at a scale."""
        if not math.isfinite(alpha):
            raise UsageError(f"Alpha must be a finite number, found {alpha}.")
        if not 0.0 <= alpha <= 1.0:
            warnings.warn(
                f"alpha {alpha:g} is outside of [0, 1]: it extrapolates beyond both models",
                stacklevel=3,
            )
        name = self.facts["method"]["name"]
        if not folds(name):
            raise UsageError(
                f"What {name} trains does not fold into plain weights, so there is nothing to "
                "merge. Export, eval and predict use its adapters as they are."
            )
        merged: dict[str, Tensor] = registered(METHODS, name).merge(
            self.base.model.state_dict(), self.tensors, alpha
        )
        return merged


def with_adapters(
    base: LoadedModel, method: Mapping[str, Any], stored: Mapping[str, Tensor], alpha: float
) -> LoadedModel:
    """A copy of the base model with what was trained attached to it.

    Args:
        method: its name and settings, as a recipe has them.
        stored: what a run keeps of it.
        alpha: what it is scaled by.
    """
    name = method["name"]
    settings = schema(name, METHODS[name], "attach").model_validate(method).arguments()
    model = copy.deepcopy(base.model)
    registered(METHODS, name).attach(model, **settings).load_stored(stored, alpha)
    config = {**base.config, "attached": {**method, "alpha": alpha}}
    return dataclasses.replace(base, model=model.eval().requires_grad_(False), config=config)


def open_trained(run: Run | Path | str, which: Which | None = None) -> Trained:
    """Read a run's adapter and its base model.

    Args:
        which: `last` or `best`; None: that of the present merged model.

    Raises:
        BrokenInput: training has not finished, the file is damaged, or the base model that is
            found under its name has other weights than the adapter was trained on.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    which = which or run.which()
    path = run.trained(which)
    try:
        facts = radapter_facts(path)
        name, expected = facts["base_model"], facts["base_hash"]
        if facts["method"]["name"] not in METHODS:
            raise BrokenInput(f"{path} was made by an unknown method: {facts['method']['name']}.")
    except (KeyError, TypeError, ValueError):
        raise BrokenInput(f"{path} is not an adapter of radapter: it has no metadata.") from None
    tensors = load_file(path)
    base = load_base(facts)
    if base.weights_hash != expected:
        raise BrokenInput(
            f"{path} was trained on weights with hash {expected[:16]}, but {name} has "
            f"{base.weights_hash[:16]}: another base model. Merge with the one it was trained on."
        )
    return Trained(base, facts, tensors, which, run.class_names())


def load_base(facts: Mapping[str, Any]) -> LoadedModel:
    """The model that an adapter was trained on, used as it was then."""
    name = facts["base_model"]
    before = conventions.before(name.partition(":")[0])
    return load(name, seed=facts["base_seed"], of_file=facts.get("base_used_with", before))


def merge(run: Run | Path | str, alpha: float, which: Which = "last") -> dict[str, Tensor]:
    """The state dict of the plain open_clip model: the run's adapter folded in at `alpha`.

    alpha = 0 gives the base weights bit for bit. Beyond [0, 1] it works, with a warning.

    Raises:
        BrokenInput: see `open_trained`.
        UsageError: alpha is no finite number.
    """
    return open_trained(run, which).at(alpha)


def write_merged(run: Run, alpha: float, trained: Trained | None = None) -> tuple[Path, bool]:
    """Write `merged/alpha-A/`, of the best adapter `merged/alpha-A-best/`, in open_clip's folder
    format and make it the run's present one.

    Returns:
        The folder, and whether it was written (False: it was there already, whole).
    """
    trained = trained or open_trained(run, "last")
    state = trained.at(alpha)
    best = trained.which == "best"
    facts = {
        "schema_version": 1,
        "alpha": alpha,
        "method": trained.facts["method"],
        "base_model": trained.facts["base_model"],
        "base_hash": trained.facts["base_hash"],
        "weights_hash": weights_hash(state),
        **({"adapter": "best"} if best else {}),
    }
    folder = run.path / "merged" / f"{_in_name(alpha)}{'-best' if best else ''}"
    written = not _is_whole(folder, facts["weights_hash"])
    if written:
        with new_folder(folder) as temporary:
            save(temporary, trained.base, state)
            (temporary / "merged.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_atomic(folder.parent / "current", folder.name + "\n")
    return folder, written


def _in_name(alpha: float) -> str:
    return f"alpha-{alpha:.2f}" if round(alpha, 2) == alpha else f"alpha-{alpha!r}"


def read_merged(run: Run) -> tuple[LoadedModel, dict[str, Any]]:
    """The run's present merged model and its facts (alpha, hashes).

    Raises:
        BrokenInput: there is none (the message names the command), or its weights have changed.
    """
    folder = run.merged()
    loaded, facts = load(folder), run.merged_facts()
    expected = facts["weights_hash"]
    if loaded.weights_hash != expected:
        raise BrokenInput(
            f"{folder} does not have the weights that were merged (hash "
            f"{loaded.weights_hash[:16]}, expected {expected[:16]}): merge again."
        )
    return loaded, facts


# ---------------------------------------------------------------- what a run deploys


def tuned(run: Run) -> tuple[LoadedModel, dict[str, Any]]:
    """The model that export, evaluation and prediction use, with its facts (method, alpha, hashes):
    the run's present merged one; or, where the method does not fold, the base model with its
    adapters attached, scaled by the recipe's alpha.

    Raises:
        BrokenInput: there is none (the message names the command), or it is damaged.
    """
    if folds(run.recipe().method.name):
        return read_merged(run)
    trained, alpha = open_trained(run), run.recipe().alpha
    loaded = with_adapters(trained.base, trained.facts["method"], trained.tensors, alpha)
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


def _is_whole(folder: Path, expected: str) -> bool:
    try:
        return load(folder).weights_hash == expected
    except BrokenInput:
        return False
