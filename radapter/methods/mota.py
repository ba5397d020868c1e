"""Adapters for composed retrieval on an inversion network, after MoTa-Adapter (2024), of which no
code is known to us: the form and the settings below are ours, from what its abstract says.

    word = network((1 + a) z / |z| + b),                  a = b = 0 at first
    prompt_i = sum_k softmax(G e + h)_k P_ki,             P [sets, prompts, width]

z is the feature of the picture, and e the mean embedding of the text's tokens, so that a gate
chooses among sets of prompts by what is to be changed. The prompts stand before the text in its
template. The network stays as the run of `inversion` left it that training starts from; so do both
towers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.methods.attached import Attached, Values
from radapter.methods.branches import holding
from radapter.methods.inversion import Inversion, build, check_template
from radapter.models.queries import PLACE
from radapter.registry import Average, Count

FOLLOWS = "inversion"
"""The method whose run training starts from"""
EXAMPLES: tuple[dict[str, Any], ...] = (
    {"hidden": 1, "template": "$ {}"},
    {"hidden": 2, "sets": 1, "prompts": 2},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({},)
"""Training never starts at the zero-shot model"""
PROMPT_STD = 0.02


class Mota(Inversion):
    """z [n, dim] -> words [n, prompts + 1, width]: see above and `models.queries`."""

    def __init__(self, like: Tensor, dim: int, *, sets: int, prompts: int, **network: Any) -> None:
        super().__init__(like, dim, drop=0.0, unit_norm=True, **network)
        self.layers.requires_grad_(False)
        width = like.shape[-1]
        self.prompts = nn.Parameter(PROMPT_STD * torch.randn(sets, prompts, width))
        self.gate = nn.Linear(width, sets)
        self.stretch = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def words(self, z: Tensor, tokens: Tensor, plain: Tensor) -> Tensor:
        is_text = ((tokens != self.place) & (tokens != 0))[..., None].to(plain.dtype)  # 0: padding
        mean = (plain * is_text).sum(dim=1) / is_text.sum(dim=1).clamp(min=1)
        prompts = torch.einsum("nk,kpw->npw", self.gate(mean).softmax(dim=1), self.prompts)
        return torch.cat([prompts, self.change(z)[:, None].to(prompts.dtype)], dim=1)

    def change(self, x: Tensor) -> Tensor:
        """The word [n, width] of features [n, dim]."""
        return super().change((1 + self.stretch) * F.normalize(x, dim=-1) + self.shift)


def attach(
    model: nn.Module,
    *,
    sets: Count = 4,
    prompts: Count = 4,
    hidden: Count = 4,
    template: str = "a photo of $ that {}",
    place: Count = 259,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model, and put the network with its adapters beside the towers.

    Args:
        model: an open_clip model whose text tower is causal.
        sets: how many sets of prompts there are.
        prompts: words in a set.
        hidden: width of the network's hidden layers, as in the run that training starts from.
        template: what a text is put into, at `{}`, with the picture at `$`; prompts stand before
            it.
        place: the id of the token `$`, which is 259 in CLIP's vocabulary.
        average: moving average of the adapters' weights, what is kept after training; off by
            default.

    Raises:
        UsageError: the text tower is of another kind; the template has not one `$` and one `{}`.
    """
    check_template(template)
    whole = " ".join([*[PLACE] * prompts, template])
    network: Mota = build(
        model, kind=Mota, sets=sets, prompts=prompts, hidden=hidden, template=whole, place=place
    )
    everything = dict(network.named_parameters("inversion"))
    trained = {name: p for name, p in everything.items() if p.requires_grad}

    def values() -> Values:
        return everything

    return Attached(model, trained, holding({"inversion": network}, [network]), average,
                    values=values)  # fmt: skip
