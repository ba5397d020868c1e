"""The model reads a picture and a text together and tells whether they belong together."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from radapter.errors import UsageError
from radapter.models.matching import has_matching
from radapter.objectives.contrastive import positives_of
from radapter.objectives.terms import Batch, Context, Features, Term
from radapter.registry import Count, Positive

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"temperature": 0.07, "parts": 2, "weight": 0.5})


def term(
    context: Context,
    *,
    weight: Annotated[float, Field(gt=0.0)] = 1.0,
    temperature: Positive | None = None,
    parts: Count = 1,
) -> Term:
    """The image-text matching loss of ALBEF, BLIP and UniAdapter (Lu et al., ICLR 2024).

    Of each row i of the batch three pairs: its picture with its text, its picture with a wrong
    text, its text with a wrong picture. Wrong ones are drawn by how similar they are,

        text j for picture i  ~  softmax_j(v_i . t_j / temperature),   j not right for i

    and pictures for texts alike. The loss is the mean cross-entropy of the matching head's two
    logits, over all pairs. It trains what UniAdapter attaches with `multimodal`.

    Args:
        context: the model and what is trained.
        weight: what the term is multiplied by in the loss.
        temperature: what similarities are divided by where wrong ones are drawn. `null`: the
            model's own.
        parts: how many equal parts the batch is divided into; what is wrong for a row is drawn from
            its own part. In the released code a part is a device's: 8 for Flickr30K, 1 for COCO.

    Raises:
        UsageError: the model has no matching head, or the data has clips.
    """
    if not has_matching(context.attached.model):
        raise UsageError(
            f"{context.place}: image-text-matching could have no effect, as the model has no "
            "matching head: give method={name: uniadapter, multimodal: true} and a CoCa model."
        )
    if context.dataset.frames is not None:
        raise UsageError(
            f"{context.place}: image-text-matching reads pictures, and {context.dataset.source} "
            "has clips: leave it out, and set method.multimodal=false."
        )

    def wrong(batch: Batch) -> Tensor:
        """Whether text j may be drawn for picture i, and picture i for text j, [batch, batch]."""
        right = positives_of(batch, "group")
        part = torch.arange(len(right), device=right.device) * parts // len(right)
        return ~right & (part[:, None] == part[None, :])

    def pairs(features: Features, batch: Batch) -> Tensor:
        of, may = batch["text_of"], wrong(batch)
        with torch.no_grad():
            cosines = features.images @ features.texts[of].T
            logits = (
                cosines * features.logit_scale if temperature is None else cosines / temperature
            )
            texts, pictures = _drawn(logits, may), _drawn(logits.T, may.T)
        own = torch.arange(len(of), device=of.device)
        return torch.stack([torch.cat([own, pictures, own]), torch.cat([of, of, of[texts]])], dim=1)

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert features.matches is not None
        may, rows = wrong(batch), len(batch["text_of"])
        labels = (torch.arange(3 * rows, device=may.device) < rows).long()
        # A row for which all of its part is right has no wrong one.
        counts = torch.cat([torch.ones_like(may[0]), may.any(dim=0), may.any(dim=1)])
        of_pairs = F.cross_entropy(features.matches, labels, reduction="none")
        return (counts * of_pairs).sum() / counts.sum()

    return Term(loss, pairs=pairs, paired=3, weight=weight)


def _drawn(logits: Tensor, may: Tensor) -> Tensor:
    """For each row a column that it may have, by softmax, [rows]; any where it may have none."""
    # Before the softmax, where the right ones would leave nothing to the others.
    among = logits.masked_fill(~may, -torch.inf).masked_fill(~may.any(dim=1, keepdim=True), 0.0)
    return torch.multinomial(among.softmax(dim=1), 1)[:, 0]
