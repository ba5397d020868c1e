"""FitCLIP: matches of unlabelled pictures with texts stay near those of the zero-shot model."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from radapter.errors import UsageError
from radapter.losses import retention
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Positive, Rows

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rows": "labelled"},
    {"rows": "labelled", "temperature": None, "weight": 3.0},
)


def term(
    context: Context,
    *,
    weight: Positive = 1.0,
    temperature: Positive | None = 0.015,
    squared_scale: bool = False,
    texts: Literal["labelled", "unlabelled"] = "labelled",
    rows: Rows = "unlabelled",
) -> Term:
    """KL(softmax(k S0) || softmax(k S)) over the texts of each picture, and over the pictures of
    each text, each the mean over its rows, and the mean of both (Castro and Caba Heilbron, BMVC
    2022). S = V T^T are cosines of the pictures with the batch's texts, S0 those of the zero-shot
    model; which text is right for a picture is not asked. See `radapter.losses.retention`.

    Args:
        context: what is trained, and the unlabelled pictures.
        weight: what the term is multiplied by in the loss.
        temperature: 1 / k, for both models. `null`: the trained model's.
        squared_scale: multiply by k^2 too, 4,444 by default, as the released code does.
        texts: whose texts they are compared with, a row for each that has one. `labelled`: those of
            the labelled pictures. `unlabelled`: their own, as published; it needs
            `unlabelled.texts`.
        rows: which pictures it is of; `unlabelled` and `all` need the section `unlabelled`.

    Raises:
        UsageError: there are no such pictures or texts, or no tower is trained.
    """
    context.needs_trained("in-batch-distillation", "image", "text")
    context.rows(rows)
    if texts == "unlabelled" and not (context.unlabelled and context.unlabelled.texts):
        raise UsageError(
            f"{context.place}.texts is unlabelled, and the unlabelled pictures come without texts: "
            f"set unlabelled.texts=true, or {context.place}.texts=labelled."
        )

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        of = batch["text_of"]
        labelled = batch.get("labelled", len(of))
        of = of[:labelled] if texts == "labelled" else of[labelled:]
        scale = features.logit_scale.detach() if temperature is None else 1 / temperature
        found = retention(
            features.images,
            features.texts[of],
            teacher.images,
            teacher.texts[of],
            logit_scale=scale,
        )
        return scale**2 * found if squared_scale else found

    return Term(loss, teacher="zero-shot", weight=weight, rows=rows)
