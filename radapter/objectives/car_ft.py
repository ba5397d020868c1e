"""CAR-FT: a picture is seen in the same contexts as by the zero-shot model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from radapter.objectives import contexts
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Rows

TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "a blurry photo of a {}."]
EXAMPLES: tuple[dict[str, Any], ...] = (
    {"templates": TEMPLATES},
    {"of": "class-means", "templates": TEMPLATES, "weight": 3.0},
)


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    templates: list[str] | Literal["openai"] = "openai",
    of: Literal["class-free", "class-means"] = "class-free",
    rows: Rows = "labelled",
) -> Term:
    """KL(softmax(k v0 C^T) || softmax(k v C^T)) of a picture's features v, mean over the batch (Mao
    et al., IJCV 2024). The contexts C are features of the zero-shot model's texts and stay as they
    are.

    Args:
        context: tokenizer, training data and what is trained.
        weight: what the term is multiplied by in the loss.
        templates: prompts with `{}` for the class, one for each context; `openai`: open_clip's list
            of 80.
        of: what a context's features are of. `class-free`: its template without the class.
            `class-means`: the mean over all classes of the filled template.
        rows: which pictures it is of; `unlabelled` and `all` need the section `unlabelled`.
    """
    context.needs_trained("car-ft", "image")
    make = contexts.class_free if of == "class-free" else contexts.class_means
    fixed = make(context, templates)

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        scaled = teacher.logit_scale * fixed.T
        return contexts.divergence(features.images @ scaled, teacher.images @ scaled)

    return Term(
        loss, teacher="zero-shot", reads_texts=False, weight=weight, rows=context.rows(rows)
    )
