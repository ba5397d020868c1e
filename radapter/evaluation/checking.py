"""Whether the data of a suite is present and as published; no model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from radapter.data import Dataset, open_data
from radapter.data.copies import find_copies
from radapter.data.left_out import some, summary_of
from radapter.data.scored import mask_of
from radapter.data.settings import MissingData
from radapter.errors import BrokenInput, MissingDependency, RadapterError
from radapter.evaluation.suite import Suite
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.registry import TASKS, load

SAMPLE = 100
"""Pictures that are decoded of a set without classes."""


def look(suite: Suite) -> dict[str, dict[str, Any]]:
    """Each data set's `status`, counts and what is published of it; no picture is opened.

    The status is present, partial, missing, broken, or unknown where a package that reads the set
    is absent. `problem` says what is missing or damaged, or how counts differ.
    """
    return {dataset.name: _look(suite, dataset)[0] for dataset in suite.datasets}


def check(
    suite: Suite, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, dict[str, Any]]:
    """What `look` gives with `findings`, all that is wrong, after a picture a class was decoded,
    and with the sizes of all `splits`, where a file lists them, or of a `mapping`; of
    sets that are there, with what is `left_out` and with `copies`, see `data.copies`.

    Args:
        on_progress: called with pictures decoded and pictures to decode.
    """
    looked = {dataset.name: _look(suite, dataset) for dataset in suite.datasets}
    samples = {name: _sample(opened) for name, (_, opened) in looked.items() if opened is not None}
    total, done = sum(map(len, samples.values())), 0
    result = {}
    for described in suite.datasets:
        name, (facts, dataset) = described.name, looked[described.name]
        findings = [facts["problem"]] if facts["problem"] else []
        if dataset is not None:
            facts |= described.data.sizes()
            findings += _size_problems(
                facts, "splits", "the split file is not the published one, in pictures"
            )
            findings += _size_problems(facts, "mapping", "the mapping is not the published one")
            findings += _mapping_problems(dataset) + described.data.unlike_published(dataset)
            facts |= {"left_out": summary_of(dataset.left_out), "copies": find_copies(dataset)}
            for i in samples[name]:
                try:
                    picture = dataset.read(i)
                    if dataset.mask is not None:
                        mask_of(dataset, i, picture)
                except BrokenInput as error:
                    findings.append(str(error))
                done += 1
                on_progress(done, total)
        result[name] = facts | {"decoded": len(samples.get(name, [])), "findings": findings}
    return result


def _look(suite: Suite, described: SuiteDataset) -> tuple[dict[str, Any], Dataset | None]:
    published = described.published
    facts: dict[str, Any] = {
        "role": described.role,
        "published": published.model_dump() if published else None,
    }
    kind = load(TASKS, suite.tasks[0]).DATA
    try:
        dataset = open_data(described.data.model_copy(update={"task": kind}))
        if described.gallery is not None:
            dataset = described.gallery.searched(dataset)
        if described.weight_on is not None:
            open_data(described.weight_on)
    except RadapterError as error:  # of one set; the others are looked at
        status = "missing" if isinstance(error, MissingData) else "broken"
        status = "unknown" if isinstance(error, MissingDependency) else status
        empty = {"status": status, "pictures": 0, "classes": 0, "captions": 0}
        return facts | empty | {"problem": str(error)}, None
    shortfall = described.shortfall(dataset)
    each = Counter(map(len, dataset.captions)) if kind == "captions" else Counter()
    counts: dict[str, Any] = {
        "status": "partial" if shortfall else "present",
        "pictures": len(dataset),
        "classes": len(set(dataset.labels)),
        "captions": sum(number * pictures for number, pictures in each.items()),
        "captions_a_picture": dict(sorted(each.items())),
        **({"edits": len(dataset.edits)} if dataset.edits else {}),
        "protocol": dict(dataset.protocol),
        "problem": f"{shortfall}{_absent(dataset)}{_few_captions(dataset)}" if shortfall else None,
    }
    return facts | counts, dataset


def _absent(dataset: Dataset) -> str:
    """The classes that could be answered and have no picture, the first few."""
    there = set(dataset.labels)
    names = [
        " or ".join(dataset.class_names[i] for i in answer)
        for answer in dataset.answers
        if not there & set(answer)
    ]
    return f"; no pictures of {some(names)}" if names else ""


def _few_captions(dataset: Dataset) -> str:
    """The pictures with fewer captions than most have, the first few."""
    numbers = list(map(len, dataset.captions))
    usual = Counter(numbers).most_common(1)[0][0] if numbers else 0
    few = [f"{dataset.keys[i]} ({n})" for i, n in enumerate(numbers) if n < usual]
    return f"; fewer captions than {usual}: {some(few)}" if few else ""


def _size_problems(facts: dict[str, Any], what: str, message: str) -> list[str]:
    """Parts of the split file or of the class mapping that have another size than is published."""
    published = facts["published"][what] if facts["published"] else {}
    found = facts.get(what)
    if found is None or not published or found == published:
        return []
    sizes = [
        f"{name} {found.get(name, 0):,} of {published.get(name, 0):,}"
        for name in {**published, **found}
        if found.get(name) != published.get(name)
    ]
    return [f"{message}: {', '.join(sizes)}"]


def _sample(dataset: Dataset) -> list[int]:
    """The first picture of every class; of a set without classes some from all over it."""
    if dataset.labels:
        first: dict[int, int] = {}
        for i, label in enumerate(dataset.labels):
            first.setdefault(label, i)
        return list(first.values())
    step = max(1, len(dataset) // SAMPLE)
    return list(range(0, len(dataset), step))[:SAMPLE]


def _mapping_problems(dataset: Dataset) -> list[str]:
    """Labels that no answer of a classifier can hit."""
    answered = {i for answer in dataset.answers for i in answer}
    possible = answered if dataset.answers else set(range(len(dataset.class_names)))
    strange = sorted(set(dataset.labels) - possible)
    return [f"labels that are no class: {', '.join(map(str, strange[:5]))}"] if strange else []
