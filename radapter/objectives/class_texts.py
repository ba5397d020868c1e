"""Cross-entropy among the texts of all classes, whether the batch has their pictures or not."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from radapter import distributed
from radapter.classes import first_of_name
from radapter.errors import UsageError
from radapter.models import encode_text, shorten
from radapter.models.prompts import class_template
from radapter.models.queries import PLACE, check_place
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Positive

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"temperature": None, "template": "{}"})
USUAL = "a photo of a {}."
BATCH = 256


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    temperature: Positive | None = 0.07,
    template: str | None = None,
) -> Term:
    """Mean over pictures of -log softmax_c(v . t_c / temperature) at the picture's class, c being
    all classes of the training data, those of one name being one (UCDR-Adapter; with a trained text
    tower the ablation of FLYP, section 5). Where nothing in the text tower is trained, its
    features are computed once.

    Args:
        context: the tokenizer, the training data and what is trained.
        weight: what the term is multiplied by in the loss.
        temperature: what cosines are divided by. `null`: the model's own.
        template: what the name of a class is put into, at `{}`. `null`: the method's, with its
            context, or "a photo of a {}." where it has none.

    Raises:
        UsageError: the data has no classes; the template has not one `{}`; texts have no room for
            the context, or `$` is another token than it takes the place of.
    """
    context.needs_trained("class-texts", "image", "text")
    model, names = context.attached.model, context.dataset.class_names
    if not names:
        raise UsageError(
            f"{context.place}: class-texts is of classes, and {context.dataset.source} has none: "
            "give data of `task: classification`, or the term mpm-nce."
        )
    learned = class_template(model)
    whole = template or (learned[0] if learned else USUAL)
    if whole.count("{}") != 1:
        raise UsageError(
            f"{context.place}.template needs one {{}} for the class name, found '{whole}'."
        )
    first = first_of_name(names)
    row = {number: place for place, number in enumerate(dict.fromkeys(first))}
    rows = torch.tensor([row[number] for number in first])  # class -> its text
    texts = [whole.replace("{}", names[number].replace(PLACE, " ")) for number in row]
    tokens = context.tokenize(texts)
    if learned is not None:
        check_place(context.tokenize, learned[1])
        _check_room(tokens, texts, learned[1])
    trained = "text" in context.attached.towers()
    kept: list[Tensor] = []

    def fixed() -> Tensor:
        if not kept:  # now, as a run that training starts from has been taken up by now
            kept.append(_encoded(model, tokens))
        return kept[0]

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        own = features.extra if trained else fixed()
        scale = features.logit_scale if temperature is None else 1 / temperature
        groups = batch["groups"]
        return F.cross_entropy(scale * features.images @ own.T, rows.to(groups.device)[groups])

    drawn = len(texts) if trained else 0
    return Term(
        loss, texts=(lambda: tokens) if trained else None, drawn=drawn, pool=texts,
        reads_texts=False, weight=weight,
    )  # fmt: skip


def _check_room(tokens: Tensor, texts: list[str], place: int) -> None:
    """Raise UsageError if a text was cut before the end of its context."""
    for own, text in zip(tokens, texts, strict=True):
        if int((own == place).sum()) < text.split().count(PLACE):
            raise UsageError(
                f"data.text_length: {tokens.shape[1]} tokens have no room for the context of "
                f"'{text}': give more, or a smaller method.context."
            )


@torch.no_grad()
def _encoded(model: Any, tokens: Tensor) -> Tensor:
    """Unit features [texts, dim], fp32, on the model's device."""
    device = model.logit_scale.device
    tokens = shorten(model, tokens)

    def encode(some: Tensor) -> Tensor:
        return F.normalize(encode_text(model, some.to(device)).float(), dim=-1).cpu()

    # Texts of another length would be compiled anew.
    with torch.compiler.set_stance("force_eager"):
        return distributed.in_turns(tokens.split(BATCH), encode).to(device)
