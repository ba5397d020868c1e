"""DaWin's clusters as the authors' code fits them: on the pictures that are scored.

Labels are not read, but offset and clusters of a data set depend on its own pictures, all of them:
a model that answers one picture at a time cannot do this, and scores are of another protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radapter.data import Dataset
from radapter.errors import UsageError
from radapter.evaluation import evaluate as evaluating
from radapter.evaluation.cache import Cache
from radapter.evaluation.mixing import Pair, Progress
from radapter.evaluation.result import Evaluation
from radapter.evaluation.scores import Task
from radapter.evaluation.suite import Suite
from radapter.heads import dawin
from radapter.merging import open_trained
from radapter.run import Run
from radapter.runtimes.opened import from_loaded

REMARK = (
    "sees unlabelled test data: clusters were fitted on these pictures, so no other method's score "
    "is comparable that does not"
)


def evaluate(
    run: Run,
    suite: Suite,
    facts: Mapping[str, Any],
    *,
    opened: Mapping[str, dict[Task, Dataset]],
    device: str = "cpu",
    precision: str = "fp32",
    cache: Cache | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score each data set with models merged for its own clusters.

    Args:
        run: with a merged model whose clusters wait for a test set.
        suite: of classifications among classes that were trained.
        facts: of the merged model.
        others: as of `evaluate.evaluate`.

    Raises:
        UsageError: a data set is not of such classes.
    """
    pair = Pair(run, open_trained(run), facts["alpha"], device)
    held_out = pair.held_out(cache)
    total, before = sum(len(next(iter(tasks.values()))) for tasks in opened.values()), 0
    found: Evaluation | None = None
    for described in suite.datasets:
        tasks = opened[described.name]
        dataset = tasks.get("classification")
        if dataset is None or pair.rows(dataset) is None:
            raise UsageError(
                f"{described.name} cannot be scored by clusters of its own: {run.name} was not "
                "trained on all of its classes. Merge again, without --transductive."
            )
        own = pair.on(dataset, described.data.broken_images, cache)
        fitted = dawin.fit(held_out, clusters=facts["transductive"], on=own.logits)
        mixture = pair.mixture("dawin", fitted, {"clusters": facts["transductive"]})
        scored = evaluating.evaluate(
            suite.model_copy(update={"datasets": [described]}),
            from_loaded(mixture, facts["rule"], device, precision),
            opened={described.name: tasks},
            cache=cache,
            on_progress=_after(before, total, on_progress),
        )
        before += len(dataset)
        for result in scored.sets.values():
            result.facts["remarks"] += [REMARK]
        found = found or Evaluation(suite, scored.runtime)
        found.sets |= scored.sets
        found.text_features |= scored.text_features
    assert found is not None
    return found


def _after(before: int, total: int, on_progress: Progress) -> Progress:
    """Progress of a part, told as of the whole."""
    return lambda done, _: on_progress(before + done, total)
