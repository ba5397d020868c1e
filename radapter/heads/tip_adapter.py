"""Tip-Adapter (Zhang et al., ECCV 2022): the training pictures themselves are the classifier.

    logits = κ f W^T + strength · exp(-sharpness (1 - f F^T)) Y

f are unit features of pictures, F those of the training pictures [examples, dim], Y their classes,
one-hot [examples, classes], and κ f W^T the zero-shot logits. Nothing is trained. `strength` and
`sharpness` are the paper's α and β; radapter's alpha multiplies `strength`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.heads.head import Start
from radapter.registry import Positive

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"strength": 2.0, "sharpness": 5.5, "search": False})
SHARPNESSES = [0.1 + i * (7 - 0.1) / 200 for i in range(200)]
STRENGTHS = [0.1 + i * (3 - 0.1) / 20 for i in range(20)]
"""What is searched, as in the released code for ImageNet"""


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

    def of_classes(self, cosines: Tensor, sharpness: Tensor | float) -> Tensor:
        """The sum of affinities with the examples of each class, [n, classes]."""
        classes = torch.arange(len(self.weight), device=self.labels.device)
        values = (self.labels[:, None] == classes).to(cosines)
        return affinities(cosines, sharpness) @ values

    def forward(self, features: Tensor) -> Tensor:
        (cosines,) = self.similarities(features)
        of_examples = self.of_classes(cosines, self.sharpness)
        return self.zero_shot(features) + self.strength * of_examples


def affinities(cosines: Tensor, sharpness: Tensor | float) -> Tensor:
    """exp(-sharpness (1 - cosine))."""
    return torch.exp(-sharpness * (1 - cosines))


def first_state(start: Start, strength: float, sharpness: float) -> dict[str, Tensor]:
    """The tensors of a cache of the training pictures."""
    keys, labels = start.examples()
    return {
        "weight": start.weights,
        "scale": torch.tensor(float(start.logit_scale)),
        "keys": keys,
        "labels": labels,
        "strength": torch.tensor(float(strength)),
        "sharpness": torch.tensor(float(sharpness)),
    }


def head(
    start: Start, *, strength: Positive = 1.17, sharpness: Positive = 1.0, search: bool = True
) -> Cache:
    """The cache of the training pictures. The defaults are the released code's for ImageNet.

    Args:
        start: the zero-shot classifier and the training pictures.
        strength: the weight of the cache's logits beside the zero-shot ones, the paper's α.
        sharpness: how fast the affinity falls with the distance, the paper's β.
        search: choose both on held-out data, if the recipe has it; those given are used without.
    """
    return Cache(first_state(start, strength, sharpness))


def of(state: Mapping[str, Tensor]) -> Cache:
    """The head with these tensors."""
    return Cache(state)


def at_zero(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What alpha mixes of it, at alpha 0: the strength."""
    return {"strength": torch.zeros(())}


def search(
    module: Cache, features: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The strength and the sharpness that tell most held-out pictures apart.

    Args:
        module: a head with one cache.
        features: of held-out pictures, [n, dim], unit norm.
        labels: the places of their classes, [n].

    Returns:
        Both as tensors, and the same as numbers with their `accuracy`.
    """
    found = best(module, features, labels, SHARPNESSES, STRENGTHS, [1.0])
    del found["image_share"]
    return {name: torch.tensor(found[name]) for name in ("strength", "sharpness")}, found


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
    plain, cosines = module.zero_shot(features), module.similarities(features)
    found = {"accuracy": -1.0}
    for sharpness in sharpnesses:
        caches = [module.of_classes(of, sharpness) for of in cosines]
        for share in shares:
            weights = [share, 1 - share][: len(caches)]
            cache = torch.stack([w * c for w, c in zip(weights, caches, strict=True)]).sum(dim=0)
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
