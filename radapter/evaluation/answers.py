"""What tuning changed, picture by picture: those that one of two models alone has right.

A file `answers/NAME.json` beside the result `NAME.json` of a run. `schema_version` is 1; `before`
and `after` are the two models' labels in the result. Each of `datasets`, by name, has its `data`
section with all that a later process has to be told to open it, how many `pictures` were scored,
and `lost` and `gained`: rows of a picture's name, its class, and the two models' answers. Imports
no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radapter.data import Dataset
from radapter.errors import BrokenInput
from radapter.evaluation.scores import Task, main_metrics
from radapter.files import write_atomic

if TYPE_CHECKING:
    from radapter.evaluation.result import Evaluation

SCHEMA_VERSION = 1


def answers_file(result: Path) -> Path:
    """Where the answers stand that belong to a result."""
    return result.parent / "answers" / result.name


def changed_answers(
    opened: Mapping[str, Mapping[Task, Dataset]],
    before: tuple[str, Evaluation],
    after: tuple[str, Evaluation],
) -> dict[str, Any]:
    """The content of the file, from what the suite opened and two labelled evaluations of it."""
    datasets: dict[str, Any] = {}
    for described in after[1].suite.datasets:
        tasks = opened[described.name]
        task = "classification" if "classification" in tasks else None
        own = [evaluation.sets[described.name] for _, evaluation in (before, after)]
        if task is None or any(result.predictions is None for result in own):
            continue
        dataset, read = tasks[task], set(own[0].pictures)
        places = [i for i, key in enumerate(dataset.keys) if key in read]  # without broken ones
        metric, names = main_metrics()[task], dataset.class_names
        right = [result.metrics[metric].scores.astype(bool).tolist() for result in own]
        answers = [result.predictions.tolist() for result in own if result.predictions is not None]
        rows: dict[str, list[list[str]]] = {"lost": [], "gained": []}
        for row, place in enumerate(places):
            was, now = right[0][row], right[1][row]
            if was != now:
                said = [names[answer[row]] for answer in answers]
                found = [dataset.keys[place], names[dataset.labels[place]], *said]
                rows["lost" if was else "gained"].append(found)
        data = described.data.model_copy(update={"task": "classification"}).settled()
        section = data.model_dump(mode="json")
        datasets[described.name] = {"data": section, "pictures": len(places), **rows}
    return {
        "schema_version": SCHEMA_VERSION,
        "before": before[0],
        "after": after[0],
        "datasets": datasets,
    }


def write_answers(result: Path, answers: Mapping[str, Any]) -> None:
    """Write the file beside a result."""
    write_atomic(answers_file(result), json.dumps(answers) + "\n")


def read_answers(result: Path) -> dict[str, Any] | None:
    """The answers that belong to a result; None if an earlier version wrote it.

    Raises:
        BrokenInput: the file is damaged, or of a later version.
    """
    path = answers_file(result)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        for facts in content["datasets"].values():
            _ = [(key, own, was, now) for key, own, was, now in facts["lost"] + facts["gained"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BrokenInput(f"{path} is damaged: evaluate again.") from None
    if version != SCHEMA_VERSION:
        raise BrokenInput(f"{path} is of a later version: update radapter, or evaluate again.")
    return content
