"""Pictures to features with an open model; how they are read ahead is evaluation's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from radapter.data.pictures import Pictures
from radapter.evaluation.encoding import Encoded, encode_batches
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel


def encode_pictures(
    model: OpenModel, pictures: Pictures, indices: Sequence[int], *, workers: int | None = None
) -> Iterator[Encoded]:
    """Features of the pictures at `indices`, `BATCH` at a time; see `encode_batches`."""
    return encode_batches(
        model.runtime, model.preprocess, pictures.read, indices, batch_size=BATCH, workers=workers
    )
