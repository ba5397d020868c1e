"""Top 5: whether the right class is among the five that are nearest, as action sets report it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.errors import BrokenInput
from radapter.evaluation.scores import Metric, Scored, Scores
from radapter.evaluation.tasks import classification

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite, SuiteDataset
    from radapter.evaluation.texts import Texts

METRICS = {"top5_accuracy": Metric("class accuracy, top 5", headline=True)}
DATA = "classification"
MOST = 5
CHUNK = 4096


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """What `classification` scores of it."""
    if not dataset.class_names:
        raise BrokenInput(f"{dataset.source} has no classes.")
    return classification.needs(dataset, described)


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """The texts that the model reads, and what they are called."""
    return classification.asks(dataset, templates)


def protocol(suite: Suite) -> dict[str, Any]:
    """What is a hit."""
    return {"top 5": f"the right class is among the {MOST} most likely; a tie counts as a miss"}


def score(
    dataset: Dataset,
    features: Tensor,
    texts: Texts,
    *,
    suite: Suite,
    described: SuiteDataset,
    clusters: np.ndarray,
) -> Scores:
    """The share of items with fewer than five wrong answers at least as likely as the right one."""
    import torch

    from radapter.evaluation import classification as zero_shot

    head = texts.head(dataset, suite.prompts(described))
    apart = described.data.identical_classes == "apart"
    answer = zero_shot.answer_of(dataset.class_names, dataset.answers, apart=apart)
    parts = [zero_shot.answer_scores(head.logits(p), answer) for p in features.split(CHUNK)]
    likely = torch.cat(parts)
    right = answer[torch.tensor(dataset.labels)]
    own = likely.gather(1, right[:, None])
    above = (likely >= own).sum(dim=1) - 1
    chance = min(1.0, MOST / likely.shape[1])
    return Scores({"top5_accuracy": Scored((above < MOST).numpy(), clusters, chance)})
