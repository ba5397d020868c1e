"""What a run has learned: opened with its base model, folded into it, or attached to it."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from radapter.errors import BrokenInput, UsageError
from radapter.files import radapter_facts
from radapter.heads import head as heads
from radapter.models import LoadedModel, conventions, load
from radapter.registry import HEADS, METHODS, folds, schema
from radapter.registry import load as registered
from radapter.run import Run, Which

Alpha = float | tuple[float, float]
"""One number, or one for the image tower and one for all else"""


@dataclass
class Trained:
    """What a run has learned, with the base model that it belongs to."""

    base: LoadedModel
    facts: dict[str, Any]
    """Metadata of adapter.safetensors: method, base model and hash, head, steps, EMA share"""
    tensors: dict[str, Tensor]
    """Of the towers"""
    which: Which = "last"
    classes: list[str] | None = None
    """The names of those that were trained, if any were"""
    head: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of the head, if one was trained"""

    def at(self, alpha: Alpha) -> dict[str, Tensor]:
        """The state dict of the plain model at a scale."""
        if isinstance(alpha, tuple):
            image, rest = (self.at(own) for own in alpha)
            return {n: image[n] if n.startswith("visual.") else own for n, own in rest.items()}
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

    def attached(self, alpha: float) -> LoadedModel:
        """The base model with what was trained attached to it, scaled; with its head."""
        loaded = with_adapters(self.base, self.facts["method"], self.tensors, alpha)
        return dataclasses.replace(loaded, head=self.head_at(alpha))

    def head_at(self, alpha: Alpha) -> heads.Head | None:
        """The head at a scale, that of the image tower, whose features it reads; None if none was
        trained."""
        alpha = alpha[0] if isinstance(alpha, tuple) else alpha
        return heads.mixed(self.facts["head"], self.head, alpha) if self.head else None


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
    facts, tensors, head = read_stored(path)
    base, expected = load_base(facts), facts["base_hash"]
    if base.weights_hash != expected:
        raise BrokenInput(
            f"{path} was trained on weights with hash {expected[:16]}, but {facts['base_model']} "
            f"has {base.weights_hash[:16]}: another base model. Merge with the one it was trained "
            "on."
        )
    return Trained(base, facts, tensors, which, run.class_names(), head)


def read_stored(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Metadata of a file like adapter.safetensors, its tensors of the towers, and of the head.

    Raises:
        BrokenInput: it is no such file, or damaged.
    """
    try:
        facts = radapter_facts(path)
        facts["base_model"], facts["base_hash"]
        for kind, table in (("method", METHODS), ("head", HEADS)):
            if (kind == "method" or kind in facts) and facts[kind]["name"] not in table:
                raise BrokenInput(
                    f"{path} has the {kind} {facts[kind]['name']}, which this radapter does not "
                    "know. Upgrade radapter."
                )
        name = facts["method"]["name"]
        known = schema(name, METHODS[name], "attach").model_fields
        # Of what folds the tensors say all; the others are attached with these settings.
        if not folds(name) and (unknown := sorted(facts["method"].keys() - known)):
            raise BrokenInput(
                f"{path} was trained with {name}'s setting {unknown[0]}, which this radapter does "
                "not know. Upgrade radapter."
            )
    except (KeyError, TypeError, ValueError):
        raise BrokenInput(f"{path} is not an adapter of radapter: it has no metadata.") from None
    return facts, *heads.split(load_file(path))


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
