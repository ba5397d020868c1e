"""LinCIR: an inversion network learns from texts alone to say a text's content in a word."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.models import encode_text, shorten
from radapter.models.queries import PLACE, check_place, has_queries, query_features
from radapter.objectives.terms import Batch, Context, Features, Term

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"noise": 0.5, "runs": "but-last", "weight": 2.0})

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
FUNCTION_WORDS = """
about above across after against along among around as at before behind below beneath beside
besides between beyond by down during except for from in inside into like near of off on onto out
outside over past since through throughout to toward towards under until up upon with within
without and but if nor or so than that though unless when where which while who whom whose why how
because although i me my mine we us our you your he him his she her hers it its they them their am
is are was were be been being do does did has have had having can could may might must shall
should will would not no yes there here then now very too also just only"""
"""Words that end a run: prepositions, conjunctions, pronouns, auxiliaries and adverbs"""


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    noise: Annotated[float, Field(ge=0.0)] = 1.0,
    runs: Literal["all", "but-last"] = "all",
) -> Term:
    """Mean over texts and dimensions of (f(masked, w(f(text) + u e)) - f(text))^2, with the text
    tower f before normalisation, the network's word w, u uniform in [0, noise] and e standard
    normal (Gu et al., CVPR 2024). `masked` is the text with `$` in the place of what it is about.
    It trains what the method `inversion` attaches; pictures are not read.

    Args:
        context: the tokenizer and what is trained.
        weight: what the term is multiplied by in the loss.
        noise: the largest scale of the noise, drawn for each text anew.
        runs: which runs of content words are masked: `all`, or all but one that ends the text, as
            the released code does.

    Raises:
        UsageError: the model has no inversion network, or `$` is another token than it knows.
    """
    model = inverting(context, "lincir")
    if model.inversion.template.count(PLACE) > 1:
        raise UsageError(
            f"{context.place}: lincir could have no effect, as mota keeps its network as it is: "
            "train that with method.name=inversion first."
        )

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        device = model.logit_scale.device
        texts = [masked(text, runs) for text in batch["texts"]]
        whole, cut = (
            shorten(model, tokens).to(device)
            for tokens in (batch["tokens"], context.tokenize(texts))
        )
        with torch.no_grad():
            z = encode_text(model, whole)
            scale = noise * torch.rand(len(z), device=device)
            noisy = z + scale[:, None] * torch.randn(z.shape, device=device)
        return F.mse_loss(query_features(model, noisy, cut).float(), z.float())

    return Term(loss, reads_images=False, reads_texts=False, weight=weight)


def inverting(context: Context, term: str) -> Any:
    """The model with its inversion network.

    Raises:
        UsageError: it has none, or `$` is another token than the network knows.
    """
    model: Any = context.attached.model
    if not has_queries(model):
        raise UsageError(
            f"{context.place}: {term} could have no effect, as the model has no inversion network: "
            "give method={name: inversion}"
        )
    check_place(context.tokenize, model.inversion.place)
    return model


def masked(text: str, runs: str = "all") -> str:
    """The text in lower case with `$` in the place of every run of words that are no function
    words; where there is none, of a word drawn by torch's generator; of no words, `a photo of $`.
    It stands between spaces, as beside other signs it is no token of its own.
    """
    text = " ".join(text.replace(PLACE, " ").lower().split())
    words, function = list(WORD.finditer(text)), {*FUNCTION_WORDS.split()}
    if not words:
        return f"a photo of {PLACE}"
    found: list[tuple[int, int]] = []
    follows = False
    for before, word in zip([None, *words], words, strict=False):
        content = word[0] not in function
        if content and follows and before and not text[before.end() : word.start()].strip():
            found[-1] = found[-1][0], word.end()
        elif content:
            found.append(word.span())
        follows = content
    if runs == "but-last" and found and found[-1][1] == len(text):
        found.pop()
    if not found:
        found = [words[int(torch.randint(len(words), ()))].span()]
    for start, end in reversed(found):
        text = f"{text[:start]} {PLACE} {text[end:]}"
    return " ".join(text.split())
