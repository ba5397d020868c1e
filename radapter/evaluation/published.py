"""What is published of a suite's data sets: counts, scores of well-known and of tuned models."""

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
    """How many pictures are scored."""
    classes: Count | None = None
    """How many classes these have. `null`: it has none."""
    captions: Count | dict[str, Count] | None = None
    """How many captions these have; by protocol, if it changes their number. `null`: it has
    none."""
    edits: Count | None = None
    """How many edits it has. `null`: it is no set of composed retrieval."""
    splits: dict[str, Count] = Field(default={})
    """How many pictures each split has, by its name in the split file."""
    mapping: dict[str, Count] = Field(default={})
    """How large the mapping of classes is that comes with the set."""
    where: str
    """Where it is published."""
    licence: str
    """Its licence, or its terms of use."""
    folder: str
    """The folder under the data root that the archive unpacks to."""


class Anchors(Section):
    """Published zero-shot scores, which an evaluation has to reproduce before it is trusted."""

    source: str
    """Where the scores are published."""
    tolerance: Annotated[float, Field(gt=0.0)]
    """The largest difference from them that is expected, in points."""
    protocols: dict[str, str] = Field(default={})
    """The protocol that the scores were found with, by data set, of those that have several."""
    metrics: Annotated[list[MetricName], Field(min_length=1)] = Field(default=["accuracy"])
    """What the scores measure, by the names of metrics in results."""
    scores: dict[str, dict[str, float | list[float]]]
    """The scores in %, by model (`NAME:TAG`) and data set: one number, or one for each of
    `metrics`."""

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


class PublishedRows(Section):
    """Scores of tuned models from one source that was opened and read."""

    source: str
    """Where the scores are published, with the version that was read."""
    model: str
    """The base model, `NAME:TAG`."""
    protocol: str
    """The choices that the scores depend on."""
    differs: str = ""
    """How the protocol is another than the suite's: its rows are shown apart. Nothing: it is the
    suite's, and its rows stand beside one's own of the same base model."""
    metric: MetricName = "accuracy"
    """What the scores measure, by its name in results."""
    rows: Annotated[dict[str, dict[str, float]], Field(min_length=1)]
    """The scores in %, by method and data set."""
