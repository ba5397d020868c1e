"""Texts about contexts ("a sketch of a ..."), and the shares of them that a picture is seen in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter import distributed
from radapter.data import pairs
from radapter.errors import UsageError
from radapter.models import encode_text, shorten
from radapter.objectives.terms import Context

BATCH = 256


def class_free(context: Context, templates: list[str] | str) -> Tensor:
    """The zero-shot model's unit features [templates, dim] of templates without the class."""
    texts = [" ".join(text.replace("{}", "").split()) for text in templates_of(context, templates)]
    return F.normalize(_encoded(context, texts), dim=-1)


def class_means(context: Context, templates: list[str] | str) -> Tensor:
    """Unit-norm means over all classes, [templates, dim], of the zero-shot model's unit features.

    Raises:
        UsageError: the data has no classes.
    """
    names = context.dataset.class_names
    if not names:
        raise UsageError(
            f"{context.place} needs classes, and {context.dataset.source} has none: its contexts "
            "are means over them."
        )
    filled = templates_of(context, templates)
    features = _encoded(context, [t.replace("{}", name) for t in filled for name in names])
    return F.normalize(features.view(len(filled), len(names), -1).mean(dim=1), dim=-1)


def templates_of(context: Context, templates: list[str] | str) -> list[str]:
    """Prompts with `{}` for the class; `openai` are open_clip's 80.

    Raises:
        UsageError: fewer than two, or one without a single `{}`.
    """
    given = pairs.templates_of(templates)
    if len(set(given)) < 2 or any(text.count("{}") != 1 for text in given):
        raise UsageError(
            f"{context.place}.templates needs at least two different texts, each with one {{}} for "
            "the class name."
        )
    return given


def divergence(now: Tensor, then: Tensor, *, mean: str = "pictures") -> Tensor:
    """KL(softmax(then) || softmax(now)) of logits [batch, contexts]: its mean over pictures, or
    over all `elements`, which is that divided by the number of contexts."""
    each = F.kl_div(
        F.log_softmax(now, dim=1), F.log_softmax(then, dim=1), log_target=True, reduction="none"
    )
    return each.sum(dim=1).mean() if mean == "pictures" else each.mean()


@torch.no_grad()
def _encoded(context: Context, texts: Sequence[str]) -> Tensor:
    """Unit features [texts, dim] of the zero-shot model, on its device. Not for use in a step."""
    attached = context.attached
    attached.keep_start()
    device = next(attached.model.parameters()).device
    chunks = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    # Texts of many lengths would be compiled anew each time.
    with torch.compiler.set_stance("force_eager"), attached.at(0.0) as model:

        def encode(some: Sequence[str]) -> Tensor:
            tokens = shorten(model, context.tokenize(list(some))).to(device)
            return F.normalize(encode_text(model, tokens).float(), dim=-1).cpu()

        return distributed.in_turns(chunks, encode).to(device)
