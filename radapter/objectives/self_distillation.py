"""Self-distillation: matches within a batch stay near those of the averaged model (CaRot)."""

from __future__ import annotations

from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.objectives.terms import Batch, Context, Features, Term

EXAMPLES: tuple[dict[str, Any], ...] = ({},)


def term(context: Context, *, weight: Annotated[float, Field(gt=0.0)] = 1.5) -> Term:
    """KL(teacher || model) of the softmax over the batch's texts of each picture, and over its
    pictures of each text; each the mean over the batch, both added up (Oh et al., NeurIPS 2024).
    The teacher is the method's average, with its own temperature.

    Args:
        context: what is trained.
        weight: what the term is multiplied by in the loss.

    Raises:
        UsageError: the method has no average.
    """
    context.needs_trained("self-distillation", "image", "text")
    if not context.attached.settings.momentum:
        raise UsageError(
            f"{context.place}: self-distillation could have no effect, as the average that teaches "
            "is the model itself: set method.average.momentum, such as 0.9."
        )

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        texts = batch["text_of"]
        now, then = (f.logit_scale * f.images @ f.texts[texts].T for f in (features, teacher))
        return _divergence(now, then) + _divergence(now.T, then.T)

    return Term(loss, teacher="average", weight=weight)


def _divergence(now: Tensor, then: Tensor) -> Tensor:
    return F.kl_div(
        F.log_softmax(now, dim=1),
        F.log_softmax(then, dim=1),
        log_target=True,
        reduction="batchmean",
    )
