"""A term of the loss: what defines it, and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from radapter.data import Dataset
from radapter.data.settings import Unlabelled
from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.models.matching import has_matching
from radapter.registry import Rows

Batch = dict[str, Any]
"""See `radapter.data.pairs.collate`"""


@dataclass(frozen=True)
class Context:
    """What a term may be made from, before training."""

    tokenize: Callable[[list[str]], Tensor]
    dataset: Dataset
    attached: Attached
    place: str = "objective"
    """Where the term's settings are in the recipe, for messages: `objective.1`"""
    unlabelled: Unlabelled | None = None
    """What the recipe says of unlabelled pictures; None: there are none"""
    head: nn.Module | None = None
    """From unit-norm features of pictures to logits of the data's classes, those of one name being
    one; None: the recipe trains none"""

    def needs_trained(self, term: str, *towers: str) -> None:
        """Raises:
        UsageError: nothing is trained in any of these towers, so the term could have no effect.
        """
        if not self.attached.towers() & set(towers):
            which = f"{towers[0]} tower" if len(towers) == 1 else "towers"
            raise UsageError(
                f"{self.place}: {term} could have no effect, as nothing in the {which} is trained: "
                f"leave it out, or choose a method or method.towers that trains it."
            )

    def rows(self, rows: Rows) -> Rows:
        """The same rows, for a `Term`.

        Raises:
            UsageError: they are unlabelled ones, and the recipe has none.
        """
        if rows != "labelled" and self.unlabelled is None:
            raise UsageError(
                f"{self.place}.rows is {rows}, and the recipe has no unlabelled pictures: add a "
                f"section `unlabelled`, or set {self.place}.rows=labelled."
            )
        return rows


@dataclass(frozen=True)
class Features:
    """Of one step and all processes: unit norm, fp32. See `Term.rows`."""

    images: Tensor
    """[rows, dim]"""
    texts: Tensor
    """Of the batch's distinct texts, [texts, dim]"""
    extra: Tensor
    """Of the term's own texts"""
    logit_scale: Tensor
    """Exponentiated"""
    matches: Tensor | None = None
    """Logits [pairs, 2] of the pictures and texts that the term's `pairs` names, by the model's
    matching head; see `models.matching`"""


@dataclass
class Queue:
    """Rows of the last batches that a term's loss reads. They are the same in all processes, and
    checkpoints have them."""

    size: int
    """Rows that are kept, at most: the last ones"""
    of: str | None = None
    """`size` rows are kept of each value of this column; None: of all"""
    values: int = 1
    """How many values it has"""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """[rows, ...] each, of batches whose step was taken"""
    next: dict[str, Tensor] = field(default_factory=dict)
    """What is kept once the present step has been taken"""

    @property
    def rows(self) -> int:
        """The most that are kept."""
        return self.size * self.values

    def with_kept(self, rows: Mapping[str, Tensor], name: str) -> Tensor:
        """The rows of a batch, and those that are kept under them."""
        return torch.cat([rows[name], self.kept[name]]) if name in self.kept else rows[name]

    def append(self, rows: Mapping[str, Tensor]) -> None:
        """Keep these rows, too, the newest first, if the present step is taken."""
        joined = {name: self.with_kept(rows, name).detach() for name in rows}
        if self.of is None:
            self.next = {name: column[: self.size] for name, column in joined.items()}
        else:
            kept = _number_of_its_kind(joined[self.of]) < self.size
            self.next = {name: column[kept] for name, column in joined.items()}

    def advance(self) -> None:
        """The step was taken."""
        self.kept, self.next = self.next or self.kept, {}


def _number_of_its_kind(column: Tensor) -> Tensor:
    """How many equal values stand before each, [rows]."""
    order = column.argsort(stable=True)
    ordered = column[order]
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(
        ordered, ordered
    )
    return number


@dataclass(frozen=True)
class Term:
    """An addend of the loss."""

    loss: Callable[[Features, Features | None, Batch], Tensor] | None = None
    """Of the features, the teacher's features of the same inputs, and the batch: a scalar, fp32"""
    teacher: Literal["zero-shot", "average"] | None = None
    """It encodes the term's own texts, and those of the batch for a term that reads them"""
    texts: Callable[[], Tensor] | None = None
    """Token ids [drawn, length] to encode beside the batch's: `extra`, drawn anew each step"""
    drawn: int = 0
    pool: Sequence[str] = ()
    """What they are drawn from"""
    reads_texts: bool = True
    """Whether `loss` reads features of the batch's texts; if no term does, they are not encoded"""
    reads_images: bool = True
    """Whether `loss` reads features of the batch's pictures; if no term does, they are not read"""
    queue: Queue | None = None
    """What `loss` reads of steps before"""
    pairs: Callable[[Features, Batch], Tensor] | None = None
    """Which pictures and texts the model's decoder is to read together, rows of `images` and of
    `texts` [pairs, 2], drawn anew each step; the loss has their `matches`"""
    paired: int = 0
    """How many pairs these are for each picture of a batch"""
    penalty: Callable[[], Tensor] | None = None
    """Of parameters alone, a scalar"""
    weight: float = 1.0
    rows: Rows = "labelled"
    """Which pictures `loss` is of. `labelled`: the features and the batch that it is given are as
    if there were no others. Else its `images` are of these rows (`rows_of`), and texts and batch
    are whole."""


def check_rows(context: Context, terms: Sequence[Term]) -> None:
    """UsageError if there are unlabelled pictures, and no term is of them."""
    if context.unlabelled is None or any(term.rows != "labelled" for term in terms):
        return
    raise UsageError(
        "unlabelled: no term of the objective is of these pictures. Add {name: "
        "in-batch-distillation} to it, or `rows: all` to a term that asks for no label."
    )


def check_pairs(context: Context, terms: Sequence[Term]) -> None:
    """UsageError if there is a matching head, and no term reads it."""
    if not has_matching(context.attached.model) or any(term.pairs for term in terms):
        return
    raise UsageError(
        "method.multimodal trains a matching head, and no term of the objective reads it: add "
        "{name: image-text-matching}, or set method.multimodal=false."
    )


def rows_of(batch: Batch, rows: Rows) -> slice:
    """The places of the pictures in a batch; labelled ones stand first."""
    labelled = batch.get("labelled", len(batch["groups"]))
    return {
        "labelled": slice(0, labelled),
        "unlabelled": slice(labelled, len(batch["groups"])),
        "all": slice(0, len(batch["groups"])),
    }[rows]


def count_of(batch: Batch, rows: Rows) -> int:
    """How many these pictures are."""
    places = rows_of(batch, rows)
    return int(places.stop - places.start)


def labelled_part(batch: Batch) -> Batch:
    """The batch as if it had no unlabelled pictures, but for the pictures themselves."""
    if "labelled" not in batch:
        return batch
    own = rows_of(batch, "labelled")
    columns = [name for name in ("text_of", "groups", "domains", "own") if name in batch]
    return {**batch, **{name: batch[name][own] for name in columns}}


def trains(terms: Sequence[Term], batch: Batch) -> bool:
    """Whether a batch is a step: it has labelled pictures, and some term is of what it has."""
    if not count_of(batch, "labelled"):
        return False
    return any(term.penalty or count_of(batch, term.rows) for term in terms)
