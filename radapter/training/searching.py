"""Settings of a head that are chosen on held-out data, after the last step."""

from __future__ import annotations

import json

from radapter import distributed
from radapter.data import open_data
from radapter.errors import BrokenInput
from radapter.files import write_atomic
from radapter.heads import head as heads
from radapter.registry import HEADS, load
from radapter.run import Run
from radapter.runtimes.opened import from_loaded
from radapter.training.preparing import Parts
from radapter.training.starting import encoded, examples

FILE = "head-search.json"


def search(run: Run, parts: Parts) -> None:
    """Let the head have what does best on the recipe's held-out data, and note that in the run.
    Without such data, or with `search: false`, it keeps the values of the recipe.

    Raises:
        BrokenInput: the held-out data is missing or damaged.
    """
    head, settings = parts.head, parts.recipe.validation_data()
    if head is None or settings is None or not head.facts.get("search"):
        return
    dataset = open_data(settings)
    with parts.attached.at(0.0):  # in evaluation mode
        model = from_loaded(parts.base, device=str(parts.device))
        features, labels = examples(
            encoded(dataset, model), head.facts["classes"], parts.base.config
        )
    known = labels >= 0
    if not known.any():
        raise BrokenInput(f"{dataset.source} has no picture of the classes of the head.")
    stored = {**parts.attached.stored(), **head.stored()}
    module = heads.mixed(head.facts, stored, 1.0).module  # with the average of what was trained
    found, facts = load(HEADS, head.facts["name"]).search(
        module, features[known], labels[known], head.facts
    )
    for name, value in found.items():
        head.module.get_buffer(name).copy_(value)
    head.facts["found"] = facts
    if distributed.is_main_process():
        content = {"schema_version": 1, **facts, "data": settings.in_words()}
        content["pictures"] = int(known.sum())
        write_atomic(run.path / FILE, json.dumps(content, indent=1) + "\n")
