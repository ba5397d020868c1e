"""Classification: the class whose text is nearest to a picture, or that a trained head names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.classes import first_of_name
from radapter.data.scored import among
from radapter.evaluation.scores import Metric, Scored, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite
    from radapter.evaluation.suite_dataset import SuiteDataset
    from radapter.evaluation.texts import Texts
    from radapter.heads.head import Head

METRICS = {"accuracy": Metric("class accuracy", headline=True)}
DATA = "classification"
BINS = 15  # of the calibration error, as most papers have it


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """What of a data set can be scored.

    Args:
        dataset: opened as DATA.
        described: the data set as its suite has it: its `classes` are those to choose from.

    Raises:
        RadapterError: it lacks what the task needs, in one sentence.
    """
    return dataset if described.classes is None else among(dataset, described.classes)


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """The texts that the model reads, and what they are called."""
    return "class prompts", (t.replace("{}", n) for t in templates for n in dataset.class_names)


def protocol(suite: Suite) -> dict[str, Any]:
    """The choices that the task's numbers on any data set depend on."""
    return {"calibration": f"{BINS} bins of equal width, softmax of logit scale times cosine"}


def score(
    dataset: Dataset,
    features: Tensor,
    texts: Texts,
    *,
    suite: Suite,
    described: SuiteDataset,
    clusters: np.ndarray,
) -> Scores:
    """Accuracy, and the calibration error.

    Args:
        dataset: what `needs` gave.
        features: of its pictures, unit norm [pictures, dim].
        texts: encodes captions and heads of classifiers, each once.
        suite: and of it `described`, the data set with its settings.
        clusters: what of the pictures is resampled together, [pictures].
    """
    import torch

    from radapter.evaluation import classification as zero_shot

    head = texts.head(dataset, suite.prompts(described))
    apart = described.data.identical_classes == "apart"
    answer = zero_shot.answer_of(dataset.class_names, dataset.answers, apart=apart)
    predicted, sure = zero_shot.predict(features, head, answer)
    right = predicted == answer[torch.tensor(dataset.labels)]
    answers = int(answer.max()) + 1
    # Two runtimes may break the tie between classes of one name differently: that is agreement.
    first = torch.tensor([int((answer == a).nonzero()[0]) for a in range(answers)])
    calibration = {
        "value": zero_shot.calibration_error(sure, right, BINS),
        "bins": BINS,
        "curve": zero_shot.reliability(sure, right, BINS),
    }
    return Scores(
        {"accuracy": Scored(right.numpy(), clusters, 1 / answers, dict(dataset.trivial))},
        predictions=torch.tensor(first_of_name(dataset.class_names))[first[predicted]],
        remarks=[*_remarks(dataset, answers), *_of_head(texts.model.head, head)],
        further={"calibration_error": calibration},
    )


def _of_head(trained: Head | None, head: Head) -> list[str]:
    """Which head gave the answers, where the model has one of its own."""
    if trained is None:
        return []
    name = (trained.facts or {})["name"]
    if head.facts is not None:
        return [f"the trained head ({name}) tells the classes apart"]
    missing = next(n for n in head.names if trained.rows([n]) is None)
    return [f"texts tell the classes apart: the trained head ({name}) does not know '{missing}'"]


def _remarks(dataset: Dataset, answers: int) -> list[str]:
    """What makes an accuracy say little."""
    there = {dataset.class_names[label] for label in dataset.labels}
    if answers == 1:
        return ["there is one class to choose from, so every answer is right"]
    if len(there) == 1:
        return [f"all pictures are of one class, {there.pop()}: accuracy is how often it is named"]
    return []
