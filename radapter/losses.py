"""Objectives: MPM-NCE, which with distinct groups is CLIP's loss; retention; cross-entropy."""

from __future__ import annotations

import math

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
    return multi_positive(
        image_features,
        text_features,
        groups[:, None] == groups[None, :],
        logit_scale=logit_scale,
        smoothing=smoothing,
        margin=margin,
    )


def multi_positive(
    image_features: Tensor,
    text_features: Tensor,
    positive: Tensor,
    *,
    logit_scale: Tensor | float,
    smoothing: float = 0.0,
    margin: float = 0.0,
) -> Tensor:
    """`mpm_nce` for any relation: `positive[i, j]` says whether text j is right for picture i.

    Args:
        image_features: unit norm, [batch, dim].
        text_features: unit norm, [batch, dim].
        positive: bool, [batch, batch], with at least one positive in every row and column.
        logit_scale: kappa = 1 / temperature, already exponentiated.
        smoothing: probability mass spread over the negatives.
        margin: added to the cosine of every negative.
    """
    logits = logit_scale * (_similarity(image_features, text_features) + margin * ~positive)
    return (
        _cross_entropy(logits, positive, smoothing)
        + _cross_entropy(logits.T, positive.T, smoothing)
    ) / 2


def _cross_entropy(logits: Tensor, positive: Tensor, smoothing: float) -> Tensor:
    positives = positive.sum(dim=1, keepdim=True)
    negatives = positive.shape[1] - positives
    mass = torch.where(negatives > 0, smoothing, 0.0)
    targets = torch.where(positive, (1.0 - mass) / positives, mass / negatives.clamp(min=1))
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def retention(
    image_features: Tensor,
    text_features: Tensor,
    zero_shot_images: Tensor,
    zero_shot_texts: Tensor,
    *,
    logit_scale: Tensor | float,
) -> Tensor:
    """How far similarities have moved from the zero-shot model's.

    KL(p0 || p) of the softmax over texts of each picture, and over pictures of each text, each
    averaged, then both (distillation as in Hinton et al. 2015, of similarities instead of logits).

    Args:
        image_features: unit norm, [pictures, dim], of any pictures.
        text_features: unit norm, [texts, dim], of any texts.
        zero_shot_images: the same pictures through the zero-shot model.
        zero_shot_texts: the same texts through it.
        logit_scale: kappa, applied to both.

    Returns:
        A scalar tensor, fp32, at least 0.
    """
    logits = logit_scale * _similarity(image_features, text_features)
    before = logit_scale * _similarity(zero_shot_images, zero_shot_texts)
    total = torch.zeros((), device=logits.device)
    for ours, theirs in ((logits, before), (logits.T, before.T)):
        target = F.log_softmax(theirs, dim=1)
        total = total + F.kl_div(
            F.log_softmax(ours, dim=1), target, log_target=True, reduction="batchmean"
        )
    return total / 2


def cross_entropy(
    logits: Tensor, classes: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Mean over pictures of -sum_c q_c log softmax(logits)_c, q_c = (1 - smoothing) [c is right] +
    smoothing / classes (Szegedy et al. 2016, section 7; WiSE-FT's released code). In fp32.

    Args:
        logits: [pictures, classes].
        classes: the right one of each picture, [pictures].
        smoothing: probability mass spread evenly over all classes, the right one too.
        weights: how much each picture counts, [pictures], 1 in the mean; None: all alike.
    """
    if weights is None:
        return F.cross_entropy(logits.float(), classes, label_smoothing=smoothing)
    each = F.cross_entropy(logits.float(), classes, label_smoothing=smoothing, reduction="none")
    return (weights * each).mean()


def entropy_weighted(logits: Tensor, right: Tensor, *, by_entropy: bool = True) -> Tensor:
    """Mean over queries i of w_i CE_i, with p_i = softmax(logits_i) and CE_i = -log p_i[right_i];
    w_i = 1 + H(p_i) / log m, m the number of candidates, is between 1 and 2, and no gradient goes
    through it. In fp32.

    Args:
        logits: [queries, candidates].
        right: the place of each query's candidate, [queries].
        by_entropy: False: all w_i are 1.
    """
    logs = F.log_softmax(logits.float(), dim=1)
    each = F.nll_loss(logs, right, reduction="none")
    if not by_entropy or logits.shape[1] < 2:
        return each.mean()
    entropy = -(logs.exp() * logs).sum(dim=1).detach() / math.log(logits.shape[1])
    return ((1 + entropy) * each).mean()


def _similarity(image_features: Tensor, text_features: Tensor) -> Tensor:
    with torch.autocast(image_features.device.type, enabled=False):
        return image_features.float() @ text_features.float().T
