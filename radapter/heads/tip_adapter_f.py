"""Tip-Adapter-F (Zhang et al., ECCV 2022): Tip-Adapter whose keys are trained by cross-entropy.

    logits = κ f W^T + strength · exp(-sharpness (1 - f F^T)) Y

F starts at the features of the training pictures; it is not normalised again while it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from radapter.heads import tip_adapter
from radapter.heads.head import Start
from radapter.heads.tip_adapter import Cache
from radapter.registry import Positive

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"strength": 2.0, "search": False})


def head(
    start: Start,
    *,
    strength: Positive = 1.17,
    sharpness: Positive = 1.0,
    passes: Annotated[int, Field(ge=0)] = 0,
    search: bool = True,
    strength_to: Positive = 3.0,
    sharpness_to: Positive = 7.0,
) -> Cache:
    """The cache of the training pictures, its keys as parameters.

    Args:
        start: the zero-shot classifier and the training pictures.
        strength: the weight of the cache's logits beside the zero-shot ones, the paper's α.
        sharpness: how fast the affinity falls with the distance, the paper's β.
        passes: how many times each picture is changed as `data.augmentation` says; its key starts
            at the mean of the features. 0: it is encoded once, as evaluation prepares it.
        search: choose both after training on held-out data, if the recipe has it. Training uses
            those given.
        strength_to: the largest strength that is searched.
        sharpness_to: the largest sharpness that is searched.
    """
    return Cache(tip_adapter.first_state(start, strength, sharpness, passes), ["keys"])


def of(state: Mapping[str, Tensor]) -> Cache:
    """The head with these tensors."""
    return Cache(state, ["keys"])


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: the strength. Keys are the trained ones throughout."""
    return tip_adapter.at_zero(state)


def search(
    module: Cache, features: Tensor, labels: Tensor, settings: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """See `tip_adapter.search`."""
    return tip_adapter.search(module, features, labels, settings)
