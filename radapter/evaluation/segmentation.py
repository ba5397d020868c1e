"""Intersections and unions of classes, picture by picture, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from radapter.data.dataset import BACKGROUND

THRESHOLDS = 20
"""How many are tried: 0, 1/20, 2/20 ... of the largest class probability of a pixel"""


@dataclass
class Counts:
    """Pixels of one picture, by class."""

    right: np.ndarray
    """Without background: of each class named rightly, [classes]"""
    named: np.ndarray
    """What is named so, of pixels that have a class, [classes]"""
    there: np.ndarray
    """[classes]"""
    right_above: np.ndarray
    """With background, which is class 0, for each threshold [thresholds, 1 + classes]"""
    named_above: np.ndarray
    there_all: np.ndarray
    """[1 + classes]"""


def counts_of(named: np.ndarray, sure: np.ndarray, mask: np.ndarray, number: int) -> Counts:
    """What is counted of one picture.

    Args:
        named: the likeliest class of each pixel, from 0, or -1 where there is none,
            int [height, width].
        sure: its probability, [height, width].
        mask: see `Dataset.mask`.
        number: of classes.
    """
    counted = mask >= 0
    named, sure, mask = named[counted] + 1, sure[counted], mask[counted]
    inside = mask > BACKGROUND
    own, said = mask[inside], named[inside]
    right = np.bincount(own[own == said], minlength=number + 1)[1:]
    # The pixels that stay named at threshold t are those whose bin is t or more.
    bins = np.clip((sure * THRESHOLDS).astype(np.int64), 0, THRESHOLDS - 1)
    bins[named == BACKGROUND] = -1
    size = number + 1

    def above(chosen: np.ndarray) -> np.ndarray:
        """How many of the chosen pixels are named as each class, by threshold."""
        place = bins[chosen] * size + named[chosen]
        flat = np.bincount(place[place >= 0], minlength=THRESHOLDS * size)
        return flat.reshape(THRESHOLDS, size)[::-1].cumsum(axis=0)[::-1].copy()

    everywhere = np.ones(len(mask), dtype=bool)
    named_above, right_above = above(everywhere), above(named == mask)
    named_above[:, 0] = len(mask) - named_above.sum(axis=1)
    right_above[:, 0] = (mask == BACKGROUND).sum() - above(mask == BACKGROUND).sum(axis=1)
    return Counts(
        right,
        np.bincount(said, minlength=size)[1:],
        np.bincount(own, minlength=size)[1:],
        right_above,
        named_above,
        np.bincount(mask, minlength=size),
    )


def mean_iou(right: np.ndarray, named: np.ndarray, there: np.ndarray) -> float:
    """The mean over classes that the masks have of intersection / union, both summed over pictures.

    Args:
        right, named, there: pixels, [pictures, classes].
    """
    return float(iou_shares(right, named, there).mean())


def iou_shares(right: np.ndarray, named: np.ndarray, there: np.ndarray) -> np.ndarray:
    """A number for each picture whose mean is the mean IoU: that value, and how it would change to
    first order if the picture had more weight (the infinitesimal jackknife). Their spread is that
    of the metric, so an interval of their mean is one of the metric.

    Args:
        right, named, there: pixels, [pictures, classes].
    """
    own = there.sum(axis=0) > 0
    right, named, there = (part[:, own].astype(float) for part in (right, named, there))
    return _ratio_shares(right, named + there - right).mean(axis=1)


def accuracy_shares(right: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The same of the share of pixels that are named rightly, all pictures together."""
    sums = [part.astype(float).sum(axis=1, keepdims=True) for part in (right, there)]
    return _ratio_shares(*sums)[:, 0]


def _ratio_shares(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Of ratios of sums over pictures, [pictures, ratios]."""
    ratio = over.sum(axis=0) / under.sum(axis=0)
    return ratio + (over - ratio * under) * (len(over) / under.sum(axis=0))


def with_background(counts: list[Counts]) -> tuple[np.ndarray, list[float]]:
    """What `iou_shares` gives with background as a class: a pixel whose likeliest class is less
    likely than a threshold is background. The threshold of every second picture is the one that
    is best on the others, and the other way round.

    Returns:
        Shares [pictures]; the two thresholds.
    """
    right, named = (np.stack([getattr(c, f"{key}_above") for c in counts])
                    for key in ("right", "named"))  # fmt: skip
    there = np.stack([c.there_all for c in counts])
    place = np.arange(len(counts))
    chosen = np.zeros(len(counts), dtype=np.int64)
    found = []
    for half in (0, 1):
        others = place % 2 != half if len(counts) > 1 else place >= 0
        values = [
            mean_iou(right[others, t], named[others, t], there[others]) for t in range(THRESHOLDS)
        ]
        chosen[place % 2 == half] = int(np.argmax(values))
        found.append(int(np.argmax(values)) / THRESHOLDS)
    return iou_shares(right[place, chosen], named[place, chosen], there), found


def by_chance(there: np.ndarray) -> float:
    """The mean IoU of naming each pixel at random.

    Args:
        there: pixels of each class, [classes].
    """
    total, number = there.sum(), len(there)
    own = there[there > 0] / number
    return float((own / (there[there > 0] + total / number - own)).mean())


def of_one_class(there: np.ndarray, named: int) -> float:
    """The mean IoU of giving all pixels one class."""
    return float(there[named] / there.sum() / (there > 0).sum())
