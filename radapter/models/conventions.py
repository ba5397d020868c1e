"""What belongs to weights and is not in a file of them: preprocessing and activation.

An open_clip tag, a folder and a repository state it. A bare file does not: then the published
weights of its architecture decide, where all agree, and else the user states it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg

from radapter.errors import UsageError, nearest

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
CHOICES = {
    "interpolation": ("bicubic", "bilinear"),
    "resize_mode": ("shortest", "longest", "squash"),
    "quick_gelu": ("true", "false"),
}
PLAINEST = "ViT-B-32:laion2b_s34b_b79k (CLIP's preprocessing, quick_gelu false)"
KEYS = ("like", *PREPROCESSING, "quick_gelu")


@dataclass(frozen=True)
class Stated:
    """A model's name, and what was written behind it: `NAME:FILE,like=TAG,mean=0.5`."""

    source: str
    like: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    """Some of `mean`, `std`, `interpolation`, `resize_mode`, `quick_gelu`"""


def pieces(name: str) -> list[str]:
    """A model's name, and each `key=value` that is written behind it."""
    return re.split(r",(?=\w+=)", name)


def read(name: str) -> Stated:
    """Take apart what was given as a model.

    Raises:
        UsageError: an unknown key, or a value that it cannot have.
    """
    if Path(name.partition(":")[2]).is_file():  # a file may have such a name
        return Stated(name)
    source, *stated = pieces(name)
    values: dict[str, Any] = {}
    for piece in stated:
        key, _, value = piece.partition("=")
        if key not in KEYS:
            raise UsageError(f"{name}: unknown key '{key}'.{nearest(key, list(KEYS))}")
        values[key] = value if key == "like" else _value(name, key, value)
    return Stated(source, values.pop("like", None), values)


def _value(name: str, key: str, text: str) -> Any:
    if key in CHOICES:
        if text not in CHOICES[key]:
            raise UsageError(f"{name}: {key} takes {' or '.join(CHOICES[key])}, not '{text}'.")
        return text == "true" if key == "quick_gelu" else text
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise UsageError(
            f"{name}: {key} takes one number or three, such as 0.5 or 0.48/0.46/0.41, not '{text}'."
        )
    return tuple(numbers * 3 if len(numbers) == 1 else numbers)


def of_tag(architecture: str, tag: str) -> dict[str, Any]:
    """What open_clip uses the published weights of a tag with."""
    return _used_with(architecture, open_clip.get_pretrained_cfg(architecture, tag))


def before(architecture: str) -> dict[str, Any]:
    """CLIP's preprocessing, and the activation that the architecture is named with: what every bare
    file was used with when adapters did not yet say what theirs was."""
    return _used_with(architecture, {})


def _used_with(architecture: str, known: Mapping[str, Any]) -> dict[str, Any]:
    default = PreprocessCfg()
    found = {key: known.get(key) or getattr(default, key) for key in PREPROCESSING}
    found["mean"], found["std"] = tuple(found["mean"]), tuple(found["std"])
    # A tag's activation is part of the weights' identity: open_clip 3 only warns about it.
    return {**found, "quick_gelu": bool(known.get("quick_gelu")) or _named_quick(architecture)}


def _named_quick(architecture: str) -> bool:
    config = open_clip.get_model_config(architecture) or {}
    return bool(config.get("quick_gelu")) or architecture.endswith("quickgelu")


def of_file(architecture: str, stated: Stated, like: str | None = None) -> dict[str, Any]:
    """What a bare file of weights is used with.

    Args:
        stated: goes before all else.
        like: the tag that the file is known to be.

    Raises:
        UsageError: it is not stated and the published weights do not agree, or there are none.
    """
    if stated.like is not None:
        found = _like(architecture, stated)
    elif like is not None:
        found = of_tag(architecture, like)
    else:
        found = agreed(architecture)
    found |= stated.values
    if missing := [key for key in (*PREPROCESSING, "quick_gelu") if key not in found]:
        raise UsageError(_how_to_state(architecture, stated.source, missing))
    return found


def agreed(architecture: str) -> dict[str, Any]:
    """What all published weights of an architecture are used with, as far as they agree."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    rows = [of_tag(architecture, tag) for tag in tags]
    found = {key: rows[0][key] for key in (rows or [{}])[0] if len({r[key] for r in rows}) == 1}
    return found | ({"quick_gelu": True} if _named_quick(architecture) else {})


def _like(architecture: str, stated: Stated) -> dict[str, Any]:
    other, separator, tag = str(stated.like).rpartition(":")
    other = other if separator else architecture
    tags = open_clip.list_pretrained_tags_by_model(other)
    if tag not in tags:
        known = f" Known: {', '.join(tags)}." if tags else ""
        raise UsageError(
            f"{stated.source}: 'like={stated.like}' names no published weights of {other}.{known} "
            "Those of another architecture are named with it: like=ViT-B-32:openai."
        )
    found = of_tag(other, tag)
    return {**found, "quick_gelu": found["quick_gelu"] or _named_quick(architecture)}


def _how_to_state(architecture: str, source: str, missing: list[str]) -> str:
    kinds: dict[str, str] = {}  # one tag of each, as there may be many
    for tag in open_clip.list_pretrained_tags_by_model(architecture):
        found = of_tag(architecture, tag)
        kinds.setdefault(", ".join(f"{key} {_spelt(found[key])}" for key in missing), tag)
    if kinds:
        why = f"the published weights of {architecture} differ in it"
        which = " or ".join(f"{tag} ({kind})" for kind, tag in kinds.items())
    else:
        why, which = f"no weights of {architecture} are published", PLAINEST
    each = "".join(f",{key}={'|'.join(CHOICES.get(key, ['RED/GREEN/BLUE']))}" for key in missing)
    return (
        f"{source} is a bare file of weights, which does not say its {', '.join(missing)}, and "
        f"{why}. Say which weights yours are used like: {source},like=TAG with a TAG such as "
        f"{which}. Or state it: NAME:FILE{each}."
    )


def _spelt(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{number:.4g}" for number in value)
    return str(value).lower()
