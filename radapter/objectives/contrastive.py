"""MPM-NCE between the pictures and texts of a batch; CLIP's loss is a special case of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from radapter.losses import multi_positive
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Positive, Unit

EXAMPLES: tuple[dict[str, Any], ...] = ({"smoothing": 0.02}, {"positives": "pair", "margin": 0.0})


def term(
    context: Context | None,
    *,
    positives: Literal["group", "pair"] = "group",
    smoothing: Unit = 0.0,
    margin: Annotated[float, Field(ge=0.0)] = 0.05,
    mix_captions: Unit = 0.0,
    temperature: Positive | None = None,
) -> Term:
    """See `radapter.losses.mpm_nce`.

    Args:
        context: what is trained; None: not asked.
        positives: which texts are right for a picture. `group`: those of all pairs of its class or
            picture. `pair`: only its own, as in CLIP's contrastive loss.
        smoothing: share of the target probability that is spread over the negatives, 0 to 1.
        margin: what is added to the cosine of every negative.
        mix_captions: share of class prompts that are replaced by a caption of the picture, 0 to 1;
            it is right only for this picture and for those with the same caption.
        temperature: what cosines are divided by, such as 0.015. `null`: the model's own, trained or
            not.

    Raises:
        UsageError: no tower is trained.
    """
    if context is not None:
        context.needs_trained("mpm-nce", "image", "text")

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        return multi_positive(
            features.images,
            features.texts[batch["text_of"]],
            positives_of(batch, positives),
            logit_scale=features.logit_scale if temperature is None else 1 / temperature,
            smoothing=smoothing,
            margin=margin,
        )

    return Term(loss)


def positives_of(batch: Batch, positives: str) -> Tensor:
    """bool [batch, batch]: whether text j is right for picture i.

    All pairs of one group are positives, but a picture's own caption among class prompts
    (`batch["own"]`) is right only for that picture, and for those that drew the same caption.
    """
    groups, own, text_of = batch["groups"], batch["own"], batch["text_of"]
    alone = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    if positives == "pair":
        return alone
    of_group = groups[:, None] == groups[None, :]
    same_text = text_of[:, None] == text_of[None, :]
    return torch.where(own[None, :], same_text, of_group) | alone
