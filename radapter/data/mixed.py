"""Labelled pairs and unlabelled pictures in one batch: the pairs stand first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from radapter.data.clips import Item
from radapter.data.dataset import Dataset
from radapter.data.pairs import BatchOrder, Pairs, item_seed
from radapter.errors import BrokenInput

NO_GROUP = -1
"""The group of an unlabelled picture"""


class Pictures(TorchDataset[dict[str, Any]]):
    """Pictures, or clips, without labels. Where the data has captions, one is drawn with each."""

    def __init__(self, dataset: Dataset, transform: Callable[[Any], Tensor], seed: int):
        # Another seed: else they would be changed and ordered just as the pairs are.
        self.dataset, self.transform, self.seed = dataset, transform, item_seed(seed, -2, -2)

    def __len__(self) -> int:
        return len(self.dataset)

    def shards(self) -> list[int]:
        """The shard of every picture; empty if the data is in none."""
        return self.dataset.shards

    def __getitem__(self, place: tuple[int, int, bool]) -> dict[str, Any]:
        """(epoch, item, whether the picture is wanted); see `Pairs`."""
        epoch, index, wanted = place
        seed = item_seed(self.seed, epoch, index)
        about: dict[str, Any] = {"group": NO_GROUP, "own": False, "unlabelled": True}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            captions = self.dataset.captions[index] if self.dataset.captions else []
            if captions:
                about["text"] = captions[int(torch.randint(len(captions), ()))]
            if not wanted:
                return about
            try:
                return {"image": self.transform(self._read(epoch, index, seed)), **about}
            except BrokenInput as error:
                return {"broken": str(error), "unlabelled": True}

    def _read(self, epoch: int, index: int, seed: int) -> Item:
        if self.dataset.draw:
            return self.dataset.draw(index, epoch, seed).read()
        return (self.dataset.read_anew or self.dataset.read)(index)


class Mixed(TorchDataset[dict[str, Any]]):
    """Pairs, and behind the last one pictures: item `len(pairs)` is the first picture."""

    def __init__(self, pairs: Pairs, pictures: Pictures):
        self.pairs, self.pictures = pairs, pictures
        self.text_length = pairs.text_length

    def __len__(self) -> int:
        return len(self.pairs) + len(self.pictures)

    def __getitem__(self, place: tuple[int, int] | tuple[int, int, bool]) -> dict[str, Any]:
        epoch, item, wanted = place if len(place) == 3 else (*place, True)
        behind = item - len(self.pairs)
        if behind < 0:
            return self.pairs[epoch, item, wanted]
        return self.pictures[epoch, behind, wanted]


class MixedOrder(BatchOrder):
    """Batches of pairs, each with `more` unlabelled pictures behind them. An epoch goes through the
    pairs; the pictures have epochs of their own, which begin anew as often as it takes.

    Args:
        pairs: the order of the pairs.
        pictures: how many pictures there are.
        more: how many of them a batch has, if there are as many.
        seed: of their order, another one than the pairs'.
        shuffle: see `BatchOrder`.
    """

    def __init__(
        self,
        pairs: BatchOrder,
        pictures: int,
        more: int,
        seed: int,
        shuffle: Callable[[torch.Generator], Tensor] | None = None,
    ):
        self.of_pairs, self.first = pairs, pairs.items
        self.items, self.seed, self.start = pairs.items + pictures, pairs.seed, pairs.start
        self.steps_per_epoch, self.steps = pairs.steps_per_epoch, pairs.steps
        epochs = math.ceil(pairs.steps / (pictures // min(more, pictures)))
        self.of_pictures = BatchOrder(pictures, more, epochs, seed, pairs.start, shuffle)
        self.batch_size = pairs.batch_size + self.of_pictures.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # That of the pictures may be longer.
        for pairs, pictures in zip(self.of_pairs, self.of_pictures, strict=False):
            yield [*pairs, *((epoch, self.first + item) for epoch, item in pictures)]
