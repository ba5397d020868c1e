"""Classification: features and a head to predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from radapter.classes import first_of_name
from radapter.heads.head import Head


def answer_of(
    class_names: Sequence[str], answers: Sequence[Sequence[int]] = (), *, apart: bool = False
) -> Tensor:
    """Class number -> the answer that it counts as, [classes]; -1 for what is never answered.

    Args:
        class_names: a name a class.
        answers: groups of classes; without them every class is one.
        apart: groups of the same names are one answer; or, if this is set, each is its own.
    """
    first = range(len(class_names)) if apart else first_of_name(class_names)
    number: dict[tuple[int, ...], int] = {}
    found = torch.full((len(class_names),), -1)
    for classes in answers or [[i] for i in range(len(class_names))]:
        same = tuple(sorted({first[i] for i in classes}))
        found[list(classes)] = number.setdefault(same, len(number))
    return found


def answer_scores(logits: Tensor, answer: Tensor) -> Tensor:
    """From logits [n, classes] to logits [n, answers]: the largest of each answer's classes."""
    columns = (answer >= 0).nonzero()[:, 0]
    own = logits[:, columns]
    scores = own.new_full((len(own), int(answer.max()) + 1), -torch.inf)
    return scores.scatter_reduce(1, answer[columns].expand_as(own), own, "amax")


def predict(
    image_features: Tensor, head: Head, answer: Tensor, *, chunk: int = 4096
) -> tuple[Tensor, Tensor]:
    """The answer [n] of the largest logit, of equal ones the first, and its probability [n]: that
    of a softmax over all answers."""
    found, sure = [], []
    for start in range(0, len(image_features), chunk):
        scores = answer_scores(head.logits(image_features[start : start + chunk]), answer)
        found.append(scores.argmax(dim=1))
        sure.append(scores.softmax(dim=1).amax(dim=1))
    return torch.cat(found), torch.cat(sure)


def reliability(
    probability: Tensor, right: Tensor, bins: int = 15
) -> list[tuple[int, float, float]]:
    """Of each bin of confidence that has items: how many, their mean confidence, their accuracy.

    The bins are of equal width (Guo et al., ICML 2017, section 2).

    Args:
        probability: of the answer given, [n].
        right: whether it was right, [n].
    """
    place = (probability.double() * bins).ceil().clamp(1, bins).long() - 1
    columns = torch.stack([torch.ones(len(right)), probability, right]).double()
    sums = torch.zeros(3, bins, dtype=torch.double).index_add(1, place, columns).T.tolist()
    return [(int(n), sure / n, hits / n) for n, sure, hits in sums if n]


def calibration_error(probability: Tensor, right: Tensor, bins: int = 15) -> float:
    """Expected calibration error: how far confidence is from accuracy, from 0 to 1, as a mean over
    items of what `reliability` says of their bin. Arguments as there."""
    points = reliability(probability, right, bins)
    return sum(n * abs(hits - sure) for n, sure, hits in points) / len(right)
