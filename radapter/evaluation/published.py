"""What is published of a suite's data sets: their counts, and scores of well-known models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from radapter.evaluation.scores import MetricName
from radapter.registry import Section

Count = Annotated[int, Field(ge=1)]
EQUAL_CLASSES = {
    "one": "one answer",
    "apart": "each class counts for itself; of equal scores the first class",
}
"""What a protocol says of classes of one name, by `identical_classes`"""


class Published(Section):
    """What is known of a published data set, to tell a whole copy from a part of it."""

    pictures: Count
    """How many are scored."""
    classes: Count | None = None
    captions: Count | dict[str, Count] | None = None
    """How many there are; by protocol, where that changes it."""
    splits: dict[str, Count] = Field(default={})
    """Pictures of each split, as the split file calls it."""
    mapping: dict[str, Count] = Field(default={})
    """Sizes of the mapping of classes that comes with the set."""
    where: str
    """Where it is published."""
    licence: str
    folder: str
    """The folder, under the data root, that the archive unpacks to."""


class Anchors(Section):
    """Published zero-shot scores: what an evaluation has to give before it is believed."""

    source: str
    tolerance: Annotated[float, Field(gt=0.0)]
    """In points."""
    protocols: dict[str, str] = Field(default={})
    """Of data sets whose protocols differ: the one that these numbers were found with."""
    metrics: Annotated[list[MetricName], Field(min_length=1)] = Field(default=["accuracy"])
    scores: dict[str, dict[str, float | list[float]]]
    """In %, by model (`NAME:TAG`) and data set: the metric, or a number for each of `metrics`."""

    @model_validator(mode="after")
    def _a_number_for_each_metric(self) -> Anchors:
        for model in self.scores:
            for dataset, row in self.rows(model).items():
                if len(row) != len(self.metrics):
                    wanted = ", ".join(self.metrics)
                    raise ValueError(f"{model}, {dataset}: {row} are not one each for {wanted}")
        return self

    def rows(self, model: str) -> dict[str, list[float]]:
        """The numbers of a model in the order of `metrics`, by data set."""
        found = self.scores.get(model, {})
        return {name: row if isinstance(row, list) else [row] for name, row in found.items()}
