"""XMAdapter (2024): a cache of pictures and one of texts, their affinities fused.

    A = γ exp(-sharpness (1 - f F^T)) + (1 - γ) exp(-sharpness (1 - g(f) T^T))
    logits = κ f W^T + strength · A Y
    g(f) = (f + Q(f)) / |f + Q(f)|,   T_i = (W_{y_i} + M(F_i)) / |W_{y_i} + M(F_i)|

F are features of the training pictures, y their classes, Y the same one-hot, W the features of the
classes' texts. Q and M are bottlenecks, U relu(D x), with U = 0 at the start. γ is `image_share`:
at 1, without `disagreement`, this is Tip-Adapter-F.

The paper has no code. That the nets act on features and not on the text tower's prompt, their form,
and the form of the weights are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from radapter.heads import tip_adapter
from radapter.heads.head import Start
from radapter.heads.tip_adapter import Cache, affinities
from radapter.registry import Count, Positive, Unit

EXAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {"fusion": "learned", "disagreement": 0.0, "search": False},
    {"fusion": "fixed", "image_share": 1.0, "disagreement": 0.0},
)
NETS = ("query_down", "query_up", "text_down", "text_up")
SHARPNESSES = 40
SHARES = [i / 10 for i in range(11)]


class TwoCaches(Cache):
    """See above.

    Args:
        state: of a `Cache`, with the four matrices of NETS, `image_share` γ and `disagreement`.
        learned: whether γ is a parameter.
    """

    query_down: Tensor
    query_up: Tensor
    text_down: Tensor
    text_up: Tensor
    image_share: Tensor
    disagreement: Tensor

    def __init__(self, state: Mapping[str, Tensor], *, learned: bool) -> None:
        super().__init__(state, ["keys", *NETS, *(["image_share"] if learned else [])])

    def similarities(self, features: Tensor) -> list[Tensor]:
        queries = _moved(features, features, self.query_down, self.query_up)
        texts = _moved(self.weight[self.labels], self.keys, self.text_down, self.text_up)
        return [F.linear(features, self.keys), F.linear(queries, texts)]

    def forward(self, features: Tensor) -> Tensor:
        images, texts = (affinities(c, self.sharpness) for c in self.similarities(features))
        share = self.image_share.clamp(0, 1)
        sums = self.of_classes(share * images + (1 - share) * texts)
        return self.zero_shot(features) + self.strength * sums

    @torch.no_grad()
    def sample_weights(self, features: Tensor) -> Tensor:
        """How much each picture counts in the loss, [n], 1 in the mean: more where the caches
        disagree, (1 + λ d / mean d) / (1 + λ) with d the mean over examples of |A_I - A_T|."""
        images, texts = (affinities(c, self.sharpness) for c in self.similarities(features))
        apart = (images - texts).abs().mean(dim=1)
        apart = apart / apart.mean().clamp_min(torch.finfo(apart.dtype).tiny)
        return (1 + self.disagreement * apart) / (1 + self.disagreement)


def _moved(x: Tensor, condition: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """x [n, dim] and a bottleneck of the condition [n, dim], normalised."""
    return F.normalize(x + F.linear(F.relu(F.linear(condition, down)), up), dim=-1)


def head(
    start: Start,
    *,
    strength: Positive = 1.17,
    sharpness: Positive = 1.0,
    image_share: Unit = 0.5,
    fusion: Literal["searched", "learned", "fixed"] = "searched",
    disagreement: Annotated[float, Field(ge=0.0)] = 1.0,
    reduction: Count = 16,
    passes: Annotated[int, Field(ge=0)] = 0,
    search: bool = True,
    strength_to: Positive = 3.0,
    sharpness_to: Positive = 7.0,
) -> TwoCaches:
    """Both caches of the training pictures.

    Args:
        start: the zero-shot classifier and the training pictures.
        strength: the weight of the caches' logits beside the zero-shot ones.
        sharpness: how fast the affinity falls with the distance.
        image_share: γ, the weight of the image cache; the text cache has the rest.
        fusion: `searched`, γ is chosen after training on held-out data, with the two above;
            `learned`, it is trained from `image_share` on; `fixed`, it stays.
        disagreement: how much more pictures count in the loss on which the caches disagree. 0: all
            count alike.
        reduction: how many times narrower the nets' bottleneck is than the features.
        passes: how many times each picture is changed as `data.augmentation` says; its key starts
            at the mean of the features. 0: it is encoded once, as evaluation prepares it.
        search: choose `strength` and `sharpness` after training on held-out data, and γ if it is
            searched, if the recipe has such data. Training uses those given.
        strength_to: the largest strength that is searched.
        sharpness_to: the largest sharpness that is searched.
    """
    dim = start.weights.shape[1]
    width = max(1, dim // reduction)
    state = tip_adapter.first_state(start, strength, sharpness, passes)
    for name in NETS:
        if name.endswith("down"):
            state[name] = nn.init.kaiming_uniform_(torch.empty(width, dim), a=math.sqrt(5))
        else:
            state[name] = torch.zeros(dim, width)
    state["image_share"] = torch.tensor(float(image_share))
    state["disagreement"] = torch.tensor(float(disagreement))
    return TwoCaches(state, learned=fusion == "learned")


def of(state: Mapping[str, Tensor]) -> TwoCaches:
    """The head with these tensors."""
    return TwoCaches(state, learned=False)


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: the strength. All else is as trained throughout."""
    return tip_adapter.at_zero(state)


def search(
    module: TwoCaches, features: Tensor, labels: Tensor, settings: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The strength, the sharpness and, if it is searched, γ that tell most held-out pictures apart;
    see `tip_adapter.search`."""
    searched = settings["fusion"] == "searched"
    shares = SHARES if searched else [float(module.image_share.clamp(0, 1))]
    sharpnesses = tip_adapter.grid(settings["sharpness_to"], SHARPNESSES)
    strengths = tip_adapter.grid(settings["strength_to"], tip_adapter.STRENGTHS)
    found = tip_adapter.best(module, features, labels, sharpnesses, strengths, shares)
    names = ["strength", "sharpness", *(["image_share"] if searched else [])]
    return {name: torch.tensor(found[name]) for name in names}, found
