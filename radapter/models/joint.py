"""A module behind both towers: it reads features of pictures and of texts, before these are
normalised."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def put_behind(model: nn.Module, added: nn.Module, towers: Collection[str]) -> None:
    """Add `added(z)` to the features z [batch, dim] of these towers, "image" and "text"."""
    model.joint, model.joint_towers = added, tuple(towers)  # type: ignore[assignment]
    # A class and not a method of the object, so that a copy of the model runs its own module.
    model.__class__ = type(type(model).__name__, (_WithJoint, type(model)), {})


def behind(model: nn.Module, tower: str, z: Tensor) -> Tensor:
    """The features z of a tower with what is added to them, if anything is."""
    if tower not in getattr(model, "joint_towers", ()):
        return z
    added: Tensor = model.joint(z)  # type: ignore[operator]
    return z + added


def tower_alone(model: Any, images: Tensor) -> Tensor:
    """What the image tower gives for pictures [n, 3, height, width], [n, dim], before the module
    behind it: `encode_image` takes this in their place."""
    z: Tensor = super(_WithJoint, model).encode_image(images)
    return z


class _WithJoint:
    """In front of the class of an open_clip model."""

    def encode_image(self: Any, image: Tensor, normalize: bool = False) -> Tensor:
        read = image.dim() == 2  # see `tower_alone`
        z = image if read else super().encode_image(image, normalize=False)  # type: ignore[misc]
        z = behind(self, "image", z)
        return F.normalize(z, dim=-1) if normalize else z

    def encode_text(self: Any, text: Tensor, normalize: bool = False) -> Tensor:
        z = super().encode_text(text, normalize=False)  # type: ignore[misc]
        z = behind(self, "text", z)
        return F.normalize(z, dim=-1) if normalize else z
