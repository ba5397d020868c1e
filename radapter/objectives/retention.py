"""Similarities of the batch's pictures to captions are held near those of the zero-shot model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from radapter.data import Dataset
from radapter.errors import BrokenInput, UsageError
from radapter.losses import retention
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Rows

EXAMPLES: tuple[dict[str, Any], ...] = ({"pool": 7, "weight": 3.0},)


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    captions: str | None = None,
    pool: Annotated[int, Field(ge=2)] = 128,
    rows: Rows = "labelled",
) -> Term:
    """Kullback-Leibler divergence of their softmax, both directions: see `radapter.losses`.

    Args:
        context: tokenizer and training data.
        weight: what the term is multiplied by in the loss.
        captions: a text file with a caption in each line; by default, the captions of the training
            data.
        pool: how many captions a step compares the pictures with; they are drawn anew each time.
        rows: which pictures it is of; `unlabelled` and `all` need the section `unlabelled`.
    """
    context.needs_trained("retention", "image", "text")
    texts = captions_of(captions, context.dataset, context.place)

    def draw() -> Tensor:
        chosen = torch.randperm(len(texts))[:pool]
        return context.tokenize([texts[i] for i in chosen])

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        return retention(
            features.images,
            features.extra,
            teacher.images,
            teacher.extra,
            logit_scale=features.logit_scale.detach(),
        )

    return Term(
        loss,
        teacher="zero-shot",
        texts=draw,
        drawn=pool,
        pool=texts,
        reads_texts=False,
        weight=weight,
        rows=context.rows(rows),
    )


def captions_of(file: str | None, dataset: Dataset, place: str) -> list[str]:
    """The captions to compare with, each once: those of a file, or of the data.

    `place` is where the settings are in the recipe, for messages.

    Raises:
        BrokenInput: the file is missing, no UTF-8 text, or holds fewer than two captions.
        UsageError: no file is named and the data has no captions.
    """
    if file is None:
        captions = [text for texts in dataset.captions for text in texts]
        if not captions:
            raise UsageError(
                f"{place} needs captions and {dataset.source} has none: "
                f"name a text file with a caption in each line in {place}.captions."
            )
    else:
        path = Path(file).expanduser()
        try:
            captions = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            raise BrokenInput(f"No such file: {path} ({place}.captions).") from None
        except UnicodeDecodeError:
            raise BrokenInput(f"{path} is not a UTF-8 text ({place}.captions).") from None
    captions = list(dict.fromkeys(filter(None, captions)))
    if len(captions) < 2:
        raise BrokenInput(f"{place} needs at least two captions.")
    return captions
