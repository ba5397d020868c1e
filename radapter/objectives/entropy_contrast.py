"""Queries of a picture and an edit find the text that tells of the edited picture."""

from __future__ import annotations

from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.losses import entropy_weighted
from radapter.models import shorten
from radapter.models.queries import asked, query_features
from radapter.objectives.lincir import inverting
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Positive

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"temperature": 0.2, "by_entropy": False})


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    temperature: Positive = 0.07,
    by_entropy: bool = True,
) -> Term:
    """See `radapter.losses.entropy_weighted`: of queries with the frozen text tower's features of
    the texts that tell of right pictures. It trains what the methods `mota` and `inversion`
    attach.

    Args:
        context: the tokenizer, the training data and what is trained.
        weight: what the term is multiplied by in the loss.
        temperature: what cosines are divided by.
        by_entropy: whether edits that the model is undecided on count more; else all alike.

    Raises:
        UsageError: the model has no inversion network, or one that reads features of another norm;
            the data has no edits.
    """
    model = inverting(context, "entropy-contrast")
    if not context.dataset.edits:
        raise UsageError(
            f"{context.place}: entropy-contrast trains on edits, and {context.dataset.source} has "
            "none: give data of `task: edits`, such as `source: emoji-edits` or `source: triplets`."
        )
    if not model.inversion.unit_norm:
        raise UsageError(
            f"{context.place}: entropy-contrast needs a network that reads features of unit norm: "
            "set method.unit_norm=true."
        )

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        texts = [asked(model.inversion.template, text) for text in batch["edits"]]
        tokens = shorten(model, context.tokenize(texts)).to(features.images.device)
        queries = query_features(model, features.images, tokens)
        cosines = F.normalize(queries.float(), dim=-1) @ features.texts.T
        return entropy_weighted(cosines / temperature, batch["text_of"], by_entropy=by_entropy)

    return Term(loss, weight=weight)
