"""What tells the classes of a bundle apart: a trained head, or their texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from radapter import models
from radapter.classes import distinct
from radapter.heads import zero_shot
from radapter.runtimes.opened import from_loaded


def with_head(
    loaded: models.LoadedModel, classes: Mapping[str, Any], device: str = "cpu"
) -> Mapping[str, Any]:
    """Classes, of one name the first, with the `head` that tells them apart: the one that was
    trained with the model, where it knows them all, else one of their texts.

    Args:
        classes: `names`, and `prompts` or `features` as `class_features` takes them; what is
            returned may be given again.
    """
    if "head" in classes:
        return classes
    chosen = distinct(classes)
    trained = loaded.head.among(chosen["names"]) if loaded.head else None
    made = trained or zero_shot.head(from_loaded(loaded, device=device), chosen)
    return {**chosen, "head": made}


def class_features(
    loaded: models.LoadedModel, classes: Mapping[str, Any], device: str = "cpu"
) -> Tensor:
    """The zero-shot head of classes in the form that `export_bundle` takes, its texts encoded on
    `device`: `cpu`, `cuda` or `auto`."""
    return zero_shot.weights(from_loaded(loaded, device=device), classes)


def classes_hash(classes: Mapping[str, Any]) -> str:
    """Of names and prompts: the same names with other prompts are another classifier."""
    text = json.dumps([list(classes["names"]), classes.get("prompts")], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
