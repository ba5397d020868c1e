"""Contrastive objectives: MPM-NCE, of which CLIP's loss is the special case of distinct groups."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mpm_nce(
    image_features: Tensor,
    text_features: Tensor,
    groups: Tensor,
    *,
    logit_scale: Tensor | float,
    smoothing: float = 0.0,
    margin: float = 0.0,
) -> Tensor:
    """Multi-positive margin NCE (Kim et al., ECCV 2024, section 3.3), averaged over directions.

    With positives P(i) = {j : groups[j] = groups[i]} (i included) and kappa = `logit_scale`:

        l_ij = kappa * (v_i . t_j + margin * [j not in P(i)])
        q_ij = (1 - smoothing) / |P(i)| for j in P(i), else smoothing / (B - |P(i)|)
        loss = (mean_i CE(q_i., l_i.) + mean_j CE(q_.j, l_.j)) / 2

    The margin makes every negative look more similar than it is. Where all of the batch is one
    group there are no negatives, and the smoothing mass stays on the positives. With distinct
    groups, no smoothing and no margin this is the loss of CLIP. Computed in fp32.

    Args:
        image_features: unit norm, [batch, dim]; row i belongs to row i of `text_features`.
        text_features: unit norm, [batch, dim].
        groups: integer labels, [batch]; pairs with one label are positives of each other.
        logit_scale: kappa = 1 / temperature, already exponentiated.
        smoothing: probability mass spread over the negatives.
        margin: added to the cosine of every negative.

    Returns:
        A scalar tensor, fp32.
    """
    positive = groups[:, None] == groups[None, :]
    with torch.autocast(image_features.device.type, enabled=False):
        similarity = image_features.float() @ text_features.float().T
    logits = logit_scale * (similarity + margin * ~positive)

    positives = positive.sum(dim=1, keepdim=True)
    negatives = len(groups) - positives
    mass = torch.where(negatives > 0, smoothing, 0.0)
    targets = torch.where(positive, (1.0 - mass) / positives, mass / negatives.clamp(min=1))

    # Groups are symmetric, so `targets` is the right target in both directions.
    images = -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    texts = -(targets * F.log_softmax(logits.T, dim=1)).sum(dim=1).mean()
    return (images + texts) / 2
