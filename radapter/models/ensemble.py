"""Several models of one form as one: their features side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.models.loaded import LoadedModel
from radapter.models.text import encode_text


class Ensemble(nn.Module):
    """Unit-norm features of k models side by side, over √k: of unit norm again, and the cosine of
    two is the mean of the models' cosines.

    Args:
        members: the zero-shot model, the tuned one, and any further ones of the same form.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def of(self) -> Any:
        """A model that says what inputs all of them take."""
        return self.members[0]

    @property
    def visual(self) -> Any:
        return self.of.visual

    @property
    def logit_scale(self) -> Tensor:
        """Of the tuned model."""
        found: Any = self.members[1].logit_scale
        return found

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width] -> features [n, k * dim], float32."""
        members: Iterable[Any] = self.members
        return _beside([member.encode_image(pixel_values) for member in members])

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [n, length] -> features [n, k * dim], float32."""
        return _beside([encode_text(member, tokens) for member in self.members])


def _beside(features: Sequence[Tensor]) -> Tensor:
    units = [F.normalize(own.float(), dim=-1) for own in features]
    return torch.cat(units, dim=-1) / math.sqrt(len(units))


def together(members: Sequence[LoadedModel], name: str) -> LoadedModel:
    """Loaded models of one form and one preprocessing as one."""
    first, number = members[0], len(members)
    model_cfg = first.config["model_cfg"]
    config = {
        **first.config,
        "model_cfg": {**model_cfg, "embed_dim": number * model_cfg["embed_dim"], "members": number},
    }
    model = Ensemble([member.model for member in members]).eval().requires_grad_(False)
    return dataclasses.replace(first, name=name, model=model, config=config, head=None)
