"""L2-SP: the model's weights are held near those of the zero-shot model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from radapter.methods.attached import Attached
from radapter.objectives.terms import Context, Term

EXAMPLES: tuple[dict[str, Any], ...] = ({"weight": 0.5},)


def term(context: Context, *, weight: Annotated[float, Field(gt=0.0)] = 0.01) -> Term:
    """weight / 2 times the squared distance of the weights from their start (Li et al., ICML 2018).

    For an adapter that folds it is that of the merged weights, ||W_rep - W_org||^2, which most
    methods know without forming them; for one that does not, that of the trained weights.

    Args:
        context: what is trained.
        weight: what half the squared distance is multiplied by. The paper chooses it on held-out
            data.
    """
    context.needs_trained("l2-sp", "image", "text")
    change = context.attached.change or _from_start(context.attached)
    return Term(penalty=lambda: change() / 2, weight=weight)


def _from_start(attached: Attached) -> Callable[[], Tensor]:
    attached.keep_start(adapters=True)
    beside = attached.beside  # a head is held by none of it
    start = {n: v for n, v in attached.start.items() if n.partition(".")[0] not in beside}

    def change() -> Tensor:
        moved = [(attached.trained[name] - value).square().sum() for name, value in start.items()]
        return torch.stack(moved).sum()

    return change
