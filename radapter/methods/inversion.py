"""An inversion network, as LinCIR and SEARLE have it: it makes of a picture a word for the text
tower, so that "a photo of $ that is blue" asks for a picture by a picture.

    words(z) = W3 g(W2 g(W1 z)),    W1 [hidden, dim], W2 [hidden, hidden], W3 [width, hidden]

with biases; g is GELU, then dropout. Both towers stay as they are, and so do all features of
pictures and texts. The term `lincir` trains it on texts alone. It folds into no weight. Radapter's
alpha mixes the word with the embedding of the `$` itself, so at alpha 0 a query is the zero-shot
model's text.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.methods.branches import Branch, holding
from radapter.models.queries import PLACE, check_tower
from radapter.models.text import text_tower
from radapter.registry import Average, Count

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"hidden": 2, "drop": 0.0},
    {"hidden": 1, "drop": 0.0, "unit_norm": False, "template": "$ {}"},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({},)
"""Training never starts at the zero-shot model"""


class Inversion(Branch):
    """z [n, dim] -> words [n, 1, width]: see above and `models.queries`."""

    def __init__(
        self, like: Tensor, dim: int, *, hidden: int, drop: float, unit_norm: bool, template: str
    ) -> None:
        super().__init__(1.0, like)
        inner, width = hidden * dim, like.shape[-1]
        self.layers = nn.Sequential(
            nn.Linear(dim, inner), nn.GELU(), nn.Dropout(drop),
            nn.Linear(inner, inner), nn.GELU(), nn.Dropout(drop),
            nn.Linear(inner, width),
        )  # fmt: skip
        self.unit_norm, self.template, self.place = unit_norm, template, 0

    def words(self, z: Tensor, tokens: Tensor, plain: Tensor) -> Tensor:
        return self.change(z)[:, None]

    def change(self, x: Tensor) -> Tensor:
        """The word [n, width] of features [n, dim]."""
        found: Tensor = self.layers(F.normalize(x, dim=-1) if self.unit_norm else x)
        return found


def attach(
    model: nn.Module,
    *,
    hidden: Count = 4,
    drop: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5,
    unit_norm: bool = True,
    template: str = "a photo of $ that {}",
    place: Count = 259,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and put the network beside its towers.

    Args:
        model: an open_clip model whose text tower is causal.
        hidden: width of the hidden layers, in widths of the features.
        drop: the probability that a number of a hidden layer is dropped in training.
        unit_norm: whether features are scaled to unit norm before they are read. `false`: as the
            tower gives them, the default of the released code.
        template: what a text is put into, at `{}`, with the picture at `$`.
        place: the id of the token `$`, which is 259 in CLIP's vocabulary.
        average: moving average of the network's weights, what is kept after training; off by
            default.

    Raises:
        UsageError: the text tower is of another kind; the template has not one `$` and one `{}`.
    """
    check_template(template)
    network = build(
        model, hidden=hidden, drop=drop, unit_norm=unit_norm, template=template, place=place
    )
    parts = {"inversion": network}
    return Attached(model, parts, holding(parts, [network]), average)


def check_template(template: str) -> None:
    """Raise UsageError if a template has not one place for the picture and one for the text. Beside
    other signs, as in "$,", tokenizers make one token of both."""
    once = template.count(PLACE) == template.count("{}") == 1
    if not once or PLACE not in template.split():
        raise UsageError(
            f"method.template needs one $ between spaces for the picture and one {{}} for the "
            f"text, found '{template}'."
        )


def build(
    model: nn.Module, *, place: int, kind: type[Inversion] = Inversion, **settings: Any
) -> Any:
    """A network with random weights, drawn on the CPU, as the `inversion` of a frozen model.

    Raises:
        UsageError: the text tower is of a kind that words cannot be put into.
    """
    check_tower(model, "An inversion network")
    model.requires_grad_(False)
    tower = text_tower(model)
    like = tower.token_embedding.weight
    z = joint_width(tower, like.shape[1])
    network = kind(torch.empty(0, like.shape[1]), z, **settings)
    network.place = place
    network.train(model.training)
    model.inversion = network.to(like.device, like.dtype)
    return network


def joint_width(tower: Any, width: int) -> int:
    """Width of the features that both towers give."""
    projection = tower.text_projection
    if projection is None:
        return width
    linear = isinstance(projection, nn.Linear)
    return int(projection.out_features if linear else projection.shape[1])
