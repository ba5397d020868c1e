"""The best answers of retrieval put in order again by a model that reads a picture and a text
together (ALBEF, BLIP, UniAdapter): its matching logit takes the place of the cosine.

What a picture looks for among texts and what a text looks for among pictures are the same pairs, so
each is read once. Those that are not among the best stay behind these, in the order of cosines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radapter import distributed, processors
from radapter.data import Dataset
from radapter.data.clips import prepared
from radapter.evaluation import retrieval
from radapter.evaluation.retrieval import SIMILARITIES
from radapter.evaluation.suite_dataset import Rerank
from radapter.runtimes.opened import OpenModel

PICTURES = 256
"""How many pictures' tokens are held at a time"""
PAIRS = 256
"""Pairs that are read together. Fixed: the last bits of logits depend on it"""


Progress = Callable[[int, int], None]
"""Called with pairs that were read and pairs in all"""


@dataclass(frozen=True)
class Order:
    """The best answers to each query, to be put in order by their scores."""

    among: Tensor
    """Their numbers [queries, top]"""
    scores: Tensor
    """[queries, top], the largest for the first one"""


def orders(
    model: OpenModel,
    dataset: Dataset,
    features: Tensor,
    captions: Sequence[str],
    encoded: Tensor,
    rerank: Rerank,
    on_progress: Progress = lambda done, total: None,
) -> tuple[Order, Order, int]:
    """The best texts of each picture, the best pictures of each text, and how many pairs were read
    for it.

    Args:
        model: with a runtime that `matches`.
        dataset: pictures, and their unit-norm `features` [pictures, dim].
        captions: texts, and theirs, `encoded` [texts, dim].
    """
    texts, pictures = best(features, encoded, rerank.top), best(encoded, features, rerank.top)
    pairs = pairs_of(texts, pictures)
    scores = logits_of(model, dataset, captions, pairs, on_progress)
    if rerank.similarity:
        cosines = [(features[p] * encoded[t]).sum(dim=1) for p, t in _parts(pairs)]
        scores = scores + rerank.similarity * torch.cat(cosines)
    number = len(captions)
    codes = pairs[:, 0] * number + pairs[:, 1]

    def order(found: Tensor, of_pairs: Tensor) -> Order:
        return Order(found, scores[torch.searchsorted(codes, of_pairs)])

    return (
        order(texts, torch.arange(len(texts))[:, None] * number + texts),
        order(pictures, pictures * number + torch.arange(number)[:, None]),
        len(pairs),
    )


def _parts(pairs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part in pairs.split(1 << 16):
        picture, text = part.unbind(dim=1)
        yield picture, text


def best(queries: Tensor, targets: Tensor, top: int) -> Tensor:
    """The targets that are the most similar to each query [queries, min(top, targets)], int64.

    Args:
        queries: unit-norm features [queries, dim].
        targets: unit-norm features [targets, dim].
    """
    chunk = max(1, SIMILARITIES // len(targets))
    most = min(top, len(targets))
    parts = queries.split(chunk)
    return torch.cat([(part @ targets.T).topk(most, dim=1).indices for part in parts])


def pairs_of(texts: Tensor, pictures: Tensor) -> Tensor:
    """The distinct pairs of a picture and a text [pairs, 2], by picture, then by text.

    Args:
        texts: for each picture those that it looks among [pictures, top].
        pictures: for each text those that it looks among [texts, top].
    """
    ways = []
    for found, flip in ((texts, False), (pictures, True)):
        asking = torch.arange(len(found))[:, None].expand_as(found)
        pair = torch.stack([asking.flatten(), found.flatten()], dim=1)
        ways.append(pair.flip(1) if flip else pair)
    return torch.cat(ways).unique(dim=0)


def logits_of(
    model: OpenModel,
    dataset: Dataset,
    captions: Sequence[str],
    pairs: Tensor,
    on_progress: Progress = lambda done, total: None,
) -> Tensor:
    """How well each text fits its picture, by the model's matching head: its second logit [pairs].

    Pictures are read again. Several ranks share the pairs.

    Args:
        model: with a runtime that `matches`.
        dataset: its pictures.
        captions: the texts.
        pairs: of a picture and a text, by picture [pairs, 2].
    """
    runtime: Any = model.runtime
    tokens = model.tokenizer(list(captions))
    done = 0

    def read(number: int) -> Tensor:
        return prepared(model.preprocess, dataset.read(number))

    def of_block(block: Tensor) -> Tensor:
        nonlocal done
        numbers, picture = block[:, 0].unique(return_inverse=True)
        with ThreadPoolExecutor(processors.decoders()) as pool:
            match = runtime.matcher(torch.stack([*pool.map(read, numbers.tolist())]))
        found = torch.empty(len(block))
        # By text, so that a text is encoded once or twice for all these pictures.
        for part in block[:, 1].argsort(stable=True).split(PAIRS):
            distinct, text = block[part, 1].unique(return_inverse=True)
            found[part] = match(tokens[distinct], picture[part], text)[:, 1]
            done += len(part)
            on_progress(done, len(pairs))
        return found[:, None]

    ends = (pairs[:, 0].unique(return_counts=True)[1]).split(PICTURES)
    blocks = pairs.split([int(counts.sum()) for counts in ends])
    return distributed.in_turns(blocks, of_block)[:, 0]


def best_ranks(
    queries: Tensor,
    targets: Tensor | None,
    positives: Sequence[Sequence[int]],
    best: Order,
    copies: Tensor | None = None,
    which: Sequence[int] | None = None,
) -> Tensor:
    """The rank, from 0, of the best positive of each query, as `retrieval.best_ranks` has it.

    Args:
        best: those that are put in order; others stay behind them.
        queries, targets, positives, copies, which: see `retrieval.best_ranks`.
    """
    assert targets is not None
    chunk = max(1, SIMILARITIES // len(targets))
    rows = torch.arange(len(queries)) if which is None else torch.tensor(which)
    ranks = []
    for start in range(0, len(positives), chunk):
        asking = rows[start : start + chunk]
        similarity = queries[asking] @ targets.T
        scores = best.scores[asking]
        lowest = scores.amin(dim=1, keepdim=True)
        behind = similarity - similarity.amax(dim=1, keepdim=True) + lowest - 1
        order = behind.scatter(1, best.among[asking], scores)
        right = positives[start : start + chunk]
        ranks.append(retrieval.best_ranks(order, None, right, copies=copies))
    return torch.cat(ranks)
