"""Tip-Adapter (Zhang et al., ECCV 2022): the training pictures themselves are the classifier.

    logits = κ f W^T + strength · exp(-sharpness (1 - f F^T)) Y

f are unit features of pictures, F those of the training pictures [examples, dim], Y their classes,
one-hot [examples, classes], and κ f W^T the zero-shot logits. Nothing is trained. `strength` and
`sharpness` are the paper's α and β; radapter's alpha multiplies `strength`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from radapter.heads.head import Start
from radapter.registry import Positive

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"sharpness_to": 12.0, "strength_to": 5.0},
    {"strength": 2.0, "sharpness": 5.5, "search": False},
)
SHARPNESSES, STRENGTHS = 200, 20
"""How many values are searched, as in the released code"""


class Cache(nn.Module):
    """See above.

    Args:
        state: `weight` [classes, dim], `scale` κ, `keys` [examples, dim], `labels` [examples],
            `strength` and `sharpness`.
        trained: names of those that are parameters.
    """

    weight: Tensor
    scale: Tensor
    keys: Tensor
    labels: Tensor
    strength: Tensor
    sharpness: Tensor

    def __init__(self, state: Mapping[str, Tensor], trained: Sequence[str] = ()) -> None:
        super().__init__()
        for name, value in state.items():
            own = value.detach().clone()
            if name in trained:
                self.register_parameter(name, nn.Parameter(own))
            else:
                self.register_buffer(name, own)

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits [n, classes] of the texts."""
        return self.scale * F.linear(features, self.weight)

    def similarities(self, features: Tensor) -> list[Tensor]:
        """Cosines [n, examples] with the keys of each cache."""
        return [F.linear(features, self.keys)]

    def of_classes(self, affinities: Tensor) -> Tensor:
        """From affinities with examples [n, examples] to their sums by class, [n, classes]."""
        classes = torch.arange(len(self.weight), device=self.labels.device)
        return affinities @ (self.labels[:, None] == classes).to(affinities)

    def forward(self, features: Tensor) -> Tensor:
        (cosines,) = self.similarities(features)
        sums = self.of_classes(affinities(cosines, self.sharpness))
        return self.zero_shot(features) + self.strength * sums


def affinities(cosines: Tensor, sharpness: Tensor | float) -> Tensor:
    """exp(-sharpness (1 - cosine))."""
    return torch.exp(-sharpness * (1 - cosines))


def first_state(start: Start, strength: float, sharpness: float, passes: int) -> dict[str, Tensor]:
    """The tensors of a cache of the training pictures; see `head`."""
    keys, labels = start.examples(passes)
    return {
        "weight": start.weights,
        "scale": torch.tensor(float(start.logit_scale)),
        "keys": keys,
        "labels": labels,
        "strength": torch.tensor(float(strength)),
        "sharpness": torch.tensor(float(sharpness)),
    }


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
    """The cache of the training pictures. The defaults are the released code's for ImageNet; only
    `passes` is 10 there.

    Args:
        start: the zero-shot classifier and the training pictures.
        strength: the weight of the cache's logits beside the zero-shot ones, the paper's α.
        sharpness: how fast the affinity falls with the distance, the paper's β.
        passes: how many times each picture is changed as `data.augmentation` says; its key is the
            mean of the features. 0: it is encoded once, as evaluation prepares it.
        search: choose both on held-out data, if the recipe has it; those given are used without.
        strength_to: the largest strength that is searched.
        sharpness_to: the largest sharpness that is searched.
    """
    return Cache(first_state(start, strength, sharpness, passes))


def of(state: Mapping[str, Tensor]) -> Cache:
    """The head with these tensors."""
    return Cache(state)


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: the strength."""
    return {"strength": torch.zeros(())}


def search(
    module: Cache, features: Tensor, labels: Tensor, settings: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The strength and the sharpness that tell most held-out pictures apart.

    Args:
        module: a head with one cache.
        features: of held-out pictures, [n, dim], unit norm.
        labels: the places of their classes, [n].
        settings: of the recipe's `head`.

    Returns:
        Both as tensors, and the same as numbers with their `accuracy`.
    """
    sharpnesses = grid(settings["sharpness_to"], SHARPNESSES)
    strengths = grid(settings["strength_to"], STRENGTHS)
    found = best(module, features, labels, sharpnesses, strengths, [1.0])
    del found["image_share"]
    return {name: torch.tensor(found[name]) for name in ("strength", "sharpness")}, found


def grid(end: float, steps: int) -> list[float]:
    """Values from 0.1 on, the end left out, as in the released code."""
    return [0.1 + i * (end - 0.1) / steps for i in range(steps)]


@torch.no_grad()
def best(
    module: Cache,
    features: Tensor,
    labels: Tensor,
    sharpnesses: Iterable[float],
    strengths: Sequence[float],
    shares: Sequence[float],
) -> dict[str, float]:
    """The point of a grid with the highest accuracy; of equal ones the first.

    Args:
        module: a head with one cache, or two.
        shares: of the first cache, the other having the rest.

    Returns:
        `strength`, `sharpness`, `image_share` and `accuracy`, 0 to 1.
    """
    plain, known = module.zero_shot(features), module.labels >= 0
    rows = module.labels[known]
    cosines = [of[:, known].T.contiguous() for of in module.similarities(features)]
    found = {"accuracy": -1.0}
    for sharpness in sharpnesses:
        # What `of_classes` gives, without its products with 0; examples come first for speed.
        zeros = plain.new_zeros(len(module.weight), len(features))
        sums = [zeros.index_add(0, rows, affinities(of, sharpness)).T for of in cosines]
        for share in shares:
            weights = [share, 1 - share][: len(sums)]
            own = torch.stack([w * s for w, s in zip(weights, sums, strict=True)])
            cache = own.sum(dim=0).contiguous()
            for strength in strengths:
                answers = (plain + strength * cache).argmax(dim=1)
                accuracy = float((answers == labels).double().mean())
                if accuracy > found["accuracy"]:
                    found = {
                        "strength": strength,
                        "sharpness": sharpness,
                        "image_share": share,
                        "accuracy": accuracy,
                    }
    return found
