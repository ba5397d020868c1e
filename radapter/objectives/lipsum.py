"""Lipsum-FT: similarities of pictures to random texts stay those of the zero-shot model."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.models.text import text_tower
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Count, Rows

EXAMPLES: tuple[dict[str, Any], ...] = ({"texts": 6, "length": 4},)


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    texts: Count = 80,
    length: Count = 8,
    rows: Rows = "labelled",
) -> Term:
    """(l_m - l0_m)^2 / 2, mean over random texts m and the batch, of logits l = k v . t_m (Nam et
    al., ICLR 2024).

    Args:
        context: tokenizer and what is trained.
        weight: what the term is multiplied by in the loss.
        texts: how many texts a step compares the pictures with; they are drawn anew each time.
        length: random tokens in a text, beside those for its start and end.
        rows: which pictures it is of; `unlabelled` and `all` need the section `unlabelled`.

    Raises:
        UsageError: texts have no room for so many tokens.
    """
    context.needs_trained("lipsum-ft", "image", "text")
    frame, slots = _frame(context, length)
    known = _known(context, frame)

    def draw() -> Tensor:
        tokens = frame.repeat(texts, 1)
        tokens[:, slots] = known[torch.randint(len(known), (texts, length))]
        return tokens

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        now = teacher.logit_scale * features.images @ features.extra.T
        then = teacher.logit_scale * teacher.images @ teacher.extra.T
        return (now - then).square().mean() / 2

    return Term(
        loss, teacher="zero-shot", texts=draw, drawn=texts, reads_texts=False, weight=weight,
        rows=context.rows(rows),
    )  # fmt: skip


def _frame(context: Context, length: int) -> tuple[Tensor, Tensor]:
    """Token ids of a text of `length` words, and the places of the words' own tokens in it."""
    one, other = context.tokenize([" ".join(letter * length) for letter in "ab"])
    slots = (one != other).nonzero()[:, 0]
    if len(slots) != length:
        raise UsageError(
            f"{context.place}.length is {length}, and the texts have room for {len(slots)} tokens."
        )
    return one, slots


def _known(context: Context, frame: Tensor) -> Tensor:
    """The ids to draw from: tokens that the model knows, but those for start, end and padding."""
    model = context.attached.model
    tower = text_tower(model)
    table = getattr(tower, "token_embedding", None) or tower.transformer.get_input_embeddings()
    known = table.weight.detach().any(dim=1).cpu()
    blank = context.tokenize([""])
    known[blank.unique()] = False
    return known.nonzero()[:, 0]
