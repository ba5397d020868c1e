"""DaWin (Oh et al., ICLR 2025): the model that is surer of a sample has the larger weight.

    λ = e^{-H_1} / (e^{-H_0} + e^{-H_1}),    H = entropy of the probabilities

of the zero-shot model (0) and the tuned one (1), at their temperatures. Answers are
(1 - λ) p_0 + λ p_1; with clusters, those of one of K merged models: λ is assigned to a component of
a mixture of Beta distributions, and the model is merged at the mean of that component.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.heads.gate import Answers, Gate, heads_of, mixed, temperature

EXAMPLES: tuple[dict[str, Any], ...] = ({}, {"clusters": 2})
ROUNDS, ENOUGH = 1000, 1e-4
"""Of expectation and maximisation: at most so many, until the mean log-likelihood rises by less"""
TINY = 1e-6
"""How near to 0 or 1 a weight may come"""


@dataclass(frozen=True)
class Fit:
    """What is fitted on pictures of the training distribution."""

    temperatures: Tensor
    """[2]"""
    offset: Tensor
    """[2]: what is added above and below in λ"""
    beta: Tensor
    """[clusters, 2]: a and b of each Beta distribution"""
    shares: Tensor
    """[clusters] of the pictures"""

    @property
    def centres(self) -> list[float]:
        """The mean λ of each cluster, where a model is to be merged."""
        return [float(a / (a + b)) for a, b in self.beta]

    def gate(self, heads: Sequence[nn.Module]) -> Dawin:
        """With classifiers of the zero-shot model, the tuned one, and one merged at each centre."""
        return Dawin(heads, self.temperatures, self.offset, self.beta, self.shares)


class Dawin(Gate):
    """See `Fit`."""

    offset: Tensor
    beta: Tensor
    shares: Tensor
    log_scale: Tensor

    def __init__(
        self,
        heads: Sequence[nn.Module],
        temperatures: Tensor,
        offset: Tensor,
        beta: Tensor,
        shares: Tensor,
    ) -> None:
        super().__init__(heads, temperatures)
        self.register_buffer("offset", offset)
        self.register_buffer("beta", beta)
        self.register_buffer("shares", shares)
        scale = _log_scale(beta.double(), shares.double()).float()
        self.register_buffer("log_scale", scale, persistent=False)

    def remade(self, state: Mapping[str, Tensor]) -> Dawin:
        return of(state)

    def forward(self, features: Tensor) -> Tensor:
        zero_shot, tuned = self.log_probabilities(features)
        weight = weight_of(zero_shot, tuned, self.offset)
        if not len(self.beta):
            return mixed(zero_shot, tuned, weight)
        place = _log_densities(weight, self.beta, self.log_scale).argmax(dim=1)
        merged = torch.stack(
            [
                head(self.unit(features, member))
                for member, head in enumerate(self.heads)
                if member > 1
            ],
            dim=1,
        )
        chosen = place[:, None, None].expand(-1, 1, merged.shape[2])
        return merged.gather(1, chosen)[:, 0]


def of(state: Mapping[str, Tensor]) -> Dawin:
    """The gate with these tensors."""
    named = {key: state[key] for key in ("temperatures", "offset", "beta", "shares")}
    return Dawin(heads_of(state), **named)


def fit(
    answers: Answers,
    *,
    clusters: int = 0,
    on: tuple[Tensor, Tensor] | None = None,
) -> Fit:
    """Temperatures by the likelihood of labels; with clusters, the offset and the mixture.

    Args:
        answers: on held-out pictures.
        clusters: 0: answers are mixed, and nothing is merged. The released code has 3.
        on: logits of both models on other pictures, whose clusters are wanted; no label is read.
    """
    pairs = list(answers.logits)
    temperatures = torch.tensor([temperature(own, answers.labels, "likelihood") for own in pairs])
    at = [(own / t).log_softmax(dim=1) for own, t in zip(on or pairs, temperatures, strict=True)]
    if not clusters:
        none = torch.zeros(0)
        return Fit(temperatures, torch.zeros(2), none.reshape(0, 2), none)
    offset = _offset(at[0], at[1])
    weights = weight_of(at[0], at[1], offset)
    beta, shares = beta_mixture(weights, clusters)
    return Fit(temperatures, offset, beta, shares)


def weight_of(zero_shot: Tensor, tuned: Tensor, offset: Tensor) -> Tensor:
    """λ [n] of log-probabilities [n, classes]; `offset` is added above and below."""
    sure = [torch.exp((own.exp() * own).sum(dim=1)) for own in (zero_shot, tuned)]
    weight = (sure[1] + offset[0]) / (sure[0] + sure[1] + offset[1])
    return weight.clamp(TINY, 1 - TINY)


def _offset(zero_shot: Tensor, tuned: Tensor) -> Tensor:
    """The released code's `offset adjustment`: b is the mean of both coefficients of variation of
    the entropy; b is added below, and above its part b · H_0 / (H_0 + H_1), of mean entropies."""
    first, second = (-(own.exp() * own).sum(dim=1) for own in (zero_shot, tuned))
    below = (first.std() / first.mean() + second.std() / second.mean()) / 2
    return torch.stack([below * first.mean() / (first.mean() + second.mean()), below])


# ---------------------------------------------------------------- clusters


def beta_mixture(weights: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """A mixture of Beta distributions: (a, b) of each [clusters, 2], and shares [clusters].

    Expectation and maximisation, a and b by matching moments, as the authors' code does. It starts
    from clusters by k-means of three random starts; this one from those of equal numbers of sorted
    weights, so that it always gives the same.

    Raises:
        UsageError: there are fewer weights than clusters.
    """
    if len(weights) < clusters:
        raise UsageError(
            f"{clusters} clusters cannot be fitted on {len(weights)} pictures: ask for fewer, or "
            "give more pictures."
        )
    x = weights.double().clamp(TINY, 1 - TINY)
    sorted_x = x.sort().values
    centres = torch.stack([part.mean() for part in sorted_x.tensor_split(clusters)])
    for _ in range(ROUNDS):  # k-means
        nearest = (x[:, None] - centres).abs().argmin(dim=1)
        own = [x[nearest == c] for c in range(clusters)]
        moved = torch.stack(
            [part.mean() if len(part) else centres[c] for c, part in enumerate(own)]
        )
        if torch.equal(moved, centres):
            break
        centres = moved
    belongs = torch.nn.functional.one_hot(nearest, clusters).double()
    beta, shares = _matched(x, belongs)
    before = -torch.inf
    for _ in range(ROUNDS):
        densities = _log_densities(x, beta, _log_scale(beta, shares))
        now = float(densities.logsumexp(dim=1).mean())
        beta, shares = _matched(x, densities.softmax(dim=1))
        if abs(now - before) < ENOUGH:
            break
        before = now
    return beta.float(), shares.float()


def _matched(x: Tensor, belongs: Tensor) -> tuple[Tensor, Tensor]:
    """Beta distributions with the moments of weights [n] that belong [n, clusters] to them."""
    small = 10 * torch.finfo(x.dtype).eps
    counts = belongs.sum(dim=0) + small
    mean = (belongs.T @ x + small * x.mean()) / counts
    spread = (belongs.T @ x**2 + small * (x**2).mean()) / counts - mean**2
    spread = spread.clamp(min=0).minimum(mean * (1 - mean) / 4) + small
    total = mean * (1 - mean) / (spread + 1e-10) - 1
    return torch.stack([total * mean, total * (1 - mean)], dim=1), counts / counts.sum()


def _log_scale(beta: Tensor, shares: Tensor) -> Tensor:
    a, b = beta.unbind(dim=1)
    return shares.log() + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)


def _log_densities(weights: Tensor, beta: Tensor, log_scale: Tensor) -> Tensor:
    """Of each weight in each cluster [n, clusters], times the cluster's share."""
    a, b = beta.unbind(dim=1)
    x = weights[:, None]
    return (a - 1) * x.log() + (b - 1) * torch.log1p(-x) + log_scale


def settings(found: Fit) -> dict[str, Any]:
    """What was fitted, in plain data."""
    said: dict[str, Any] = {"temperatures": [round(float(t), 4) for t in found.temperatures]}
    if found.centres:
        said["centres"] = [round(c, 4) for c in found.centres]
    return said
