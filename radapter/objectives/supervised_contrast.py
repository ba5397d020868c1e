"""Pictures of a class against those of others, without texts."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Positive

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"across_domains": True, "temperature": 0.5})


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    temperature: Positive = 0.1,
    across_domains: bool = False,
) -> Term:
    """Mean over pictures i of a batch, and over the pictures p right for it, of

        -log(exp(v_i . v_p / t) / sum over all other pictures a of exp(v_i . v_a / t))

    with the temperature t (L_out of Khosla et al., NeurIPS 2020). Pictures of the same class are
    right. A picture without any in its batch counts nowhere, but as one of the others.

    Args:
        context: what is trained.
        weight: what the term is multiplied by in the loss.
        temperature: what cosines are divided by.
        across_domains: only pictures of another domain are right; those of the same class and
            domain are left out of the sum.

    Raises:
        UsageError: nothing of the image tower is trained, or the data has no classes or, where they
            are asked for, no domains.
    """
    context.needs_trained("supervised-contrast", "image")
    if not context.dataset.class_names:
        raise UsageError(
            f"{context.place}: supervised-contrast compares pictures of classes, and the data has "
            "none: give data of `task: classification`, or the term mpm-nce."
        )
    if across_domains and not context.dataset.domains:
        raise UsageError(
            f"{context.place}.across_domains is true, and the data has no domains. Leave it out."
        )

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        groups = batch["groups"]
        alike = groups[:, None] == groups[None, :]
        left_out = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
        if across_domains:
            domains = batch["domains"]
            left_out = left_out | (alike & (domains[:, None] == domains[None, :]))
        right = alike & ~left_out
        cosines = features.images @ features.images.T
        logits = cosines / temperature
        # Not -inf, of which a row whose pictures are all left out would get NaN for a gradient.
        others = logits.masked_fill(left_out, torch.finfo(logits.dtype).min)
        missed = others.logsumexp(dim=1, keepdim=True) - logits
        counts = right.sum(dim=1)
        each = missed.where(right, 0.0).sum(dim=1) / counts.clamp(min=1)
        return each.sum() / (counts > 0).sum().clamp(min=1)

    return Term(loss, reads_texts=False, weight=weight)
