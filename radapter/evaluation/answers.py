"""What tuning changed, picture by picture: what one of two models alone has right.

A file `answers/NAME.json` beside the result `NAME.json` of a run. `schema_version` is 1; `before`
and `after` are the two models' labels in the result. Each of `datasets`, by name, has its `data`
section with all that a later process has to be told to open it, how many `pictures` were scored,
and `lost` and `gained`: rows of a picture's name, its class, and the two models' answers.

Of what looks for pictures, `searched` has by data set: `set`, its section in a suite, and `task`,
by which a later process opens it; how many `queries` there were; `ways`, what each model's queries
were made of; `lost` and `gained`, rows of the query, its class or what is to be changed of it, the
best right picture, what each model found first, and the rank of its best right picture. Of
segmentation, `named` has `set` and `task` too, and `maps`: rows of a picture and the two models'
class numbers of its pixels (0 for none), each a PNG in base64. Imports no torch.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from radapter.data import Dataset, open_data
from radapter.errors import BrokenInput
from radapter.evaluation.scores import Task, main_metrics
from radapter.evaluation.shown import Firsts, Maps
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.files import write_atomic
from radapter.registry import TASKS, load

if TYPE_CHECKING:
    import numpy as np

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
        **_shown(opened, before[1], after[1]),
    }


def _shown(
    opened: Mapping[str, Mapping[Task, Dataset]], before: Evaluation, after: Evaluation
) -> dict[str, Any]:
    """`searched` and `named`."""
    found: dict[str, Any] = {"searched": {}, "named": {}}
    for described in after.suite.datasets:
        was, now = (of.sets[described.name] for of in (before, after))
        settled = described.with_data([data.settled() for data in described.all_data()])
        for task in was.shown.keys() & now.shown.keys():
            read = set(now.pictures)
            keys = [key for key in opened[described.name][task].keys if key in read]
            about = {"set": settled.model_dump(mode="json"), "task": task}
            one, two = was.shown[task], now.shown[task]
            if isinstance(one, Firsts) and isinstance(two, Firsts):
                found["searched"][described.name] = about | _searched(keys, one, two)
            if isinstance(one, Maps) and isinstance(two, Maps):
                rows = [[keys[i], *(_packed(m.named[i]) for m in (one, two))] for i in two.named]
                found["named"][described.name] = about | {"maps": rows}
    return found


def _searched(keys: list[str], before: Firsts, after: Firsts) -> dict[str, Any]:
    rows: dict[str, list[list[Any]]] = {"lost": [], "gained": []}
    for i, query in enumerate(after.queries):
        was, now = before.ranks[i], after.ranks[i]
        if (was == 1) != (now == 1):
            pictures = [keys[of] for of in (after.right[i], before.first[i], after.first[i])]
            row = [keys[query], after.said[i], *pictures, was, now]
            rows["lost" if was == 1 else "gained"].append(row)
    return {"queries": len(after.queries), "ways": [before.way, after.way], **rows}


def _packed(named: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(named.astype("uint16")).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def unpacked(named: str) -> np.ndarray:
    """The class numbers of pixels, int [height, width], of what a row of `maps` has of them.

    Raises:
        ValueError: it is no such picture.
    """
    import numpy as np

    try:
        with Image.open(io.BytesIO(base64.b64decode(named, validate=True))) as opened:
            return np.asarray(opened).astype(np.int64)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(str(error)) from None


def data_set(section: Mapping[str, Any], task: Task) -> Dataset:
    """A data set of `searched` or `named`, as it was scored.

    Raises:
        RadapterError, ValueError: it cannot be opened any more.
    """
    described = SuiteDataset.model_validate(section)
    module = load(TASKS, task)
    data = described.data.model_copy(update={"task": module.DATA})
    found: Dataset = module.needs(open_data(data), described)
    return found


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
        for facts in content.setdefault("searched", {}).values():
            _ = [(*first, was, now) for *first, was, now in facts["lost"] + facts["gained"]]
        for facts in content.setdefault("named", {}).values():
            _ = [(key, unpacked(was), unpacked(now)) for key, was, now in facts["maps"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BrokenInput(f"{path} is damaged: evaluate again.") from None
    if version != SCHEMA_VERSION:
        raise BrokenInput(f"{path} is of a later version: update radapter, or evaluate again.")
    return content
