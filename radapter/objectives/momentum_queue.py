"""Contrastive loss against the averaged model and a queue of its features, with soft targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter.errors import UsageError
from radapter.objectives.contrastive import positives_of
from radapter.objectives.terms import Batch, Context, Features, Queue, Term
from radapter.registry import Count, Unit

EXAMPLES: tuple[dict[str, Any], ...] = ({"size": 20, "rise": 0.5},)
NOBODY = -1
"""The group of a text that is right for no picture but its own"""


def term(context: Context, *, size: Count = 57600, soft: Unit = 0.4, rise: Unit = 0.0) -> Term:
    """The contrastive loss of ALBEF, BLIP and UniAdapter (Lu et al., ICLR 2024).

    With v and t of the model, those with a bar of the method's average, the texts j being the
    batch's and those of the queue, and P(i) those of the group of picture i:

        l_ij = kappa * v_i . t~_j          l~_ij = kappa * v~_i . t~_j          (~ for the bar)
        q_i  = a * softmax(l~_i) + (1 - a) * [j in P(i)] / |P(i)|
        loss = mean_i CE(q_i, l_i)

    and the same from texts to pictures; the mean of both. After a step the average's features of
    its batch join the queue, in which the last `size` pairs stay.

    Args:
        context: what is trained.
        size: pairs in the queue, at most; at first there are none.
        soft: a, the share of the targets that is the average's answer.
        rise: the share of training in which a rises linearly from 0. 0: it is `soft` throughout.

    Raises:
        UsageError: nothing of the towers is trained, or the method has no average.
    """
    attached = context.attached
    context.needs_trained("momentum-queue", "image", "text")
    if not attached.settings.momentum:
        raise UsageError(
            f"{context.place}: momentum-queue could have no effect, as the average whose features "
            "it keeps is the model itself: set "
            '"method.average={momentum: 0.995, keep: last}".'
        )
    queue = Queue(size)

    def share() -> float:
        steps = rise * attached.steps
        return soft * min(1.0, attached.updates / steps) if steps else soft

    def loss(features: Features, teacher: Features | None, batch: Batch) -> Tensor:
        assert teacher is not None
        groups, of = batch["groups"], batch["text_of"]
        text_groups = torch.where(batch["own"], NOBODY, groups)
        new = {
            "images": teacher.images,
            "texts": teacher.texts[of],
            "groups": groups,
            "text_groups": text_groups,
        }
        queue.append(new)
        right, rows = positives_of(batch, "group"), len(groups)
        texts, images = queue.with_kept(new, "texts"), queue.with_kept(new, "images")
        theirs, ours = (queue.with_kept(new, key)[rows:] for key in ("text_groups", "groups"))
        right_texts = torch.cat([right, groups[:, None] == theirs], dim=1)
        right_images = torch.cat([right.T, text_groups[:, None] == ours], dim=1)
        scale, a = features.logit_scale, share()
        return (
            _soft(features.images, new["images"], texts, right_texts, scale, a)
            + _soft(features.texts[of], new["texts"], images, right_images, scale, a)
        ) / 2

    return Term(loss, teacher="average", queue=queue)


def _soft(now: Tensor, then: Tensor, to: Tensor, right: Tensor, scale: Tensor, a: float) -> Tensor:
    """Mean cross-entropy of features `now` [batch, dim] with `to` [all, dim]; `right` is bool,
    [batch, all], `then` what the average has in the place of `now`."""
    targets = right / right.sum(dim=1, keepdim=True)
    if a:
        targets = (1 - a) * targets + a * (scale.detach() * then @ to.T).softmax(dim=1)
    return -(targets * F.log_softmax(scale * now @ to.T, dim=1)).sum(dim=1).mean()
