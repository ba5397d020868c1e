"""A folder or file of one's own as a suite of one data set: `radapter eval --data`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from radapter.errors import UsageError
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.recipe_data import HeldOut, Templates
from radapter.recipe_sources import DataSource
from radapter.starting import look


def suite_of(
    path: str,
    templates: Templates,
    *,
    classes: Sequence[str] | None = None,
    pictures: str | None = None,
) -> Suite:
    """All that lies at a path, recognised as `radapter init` does.

    Args:
        path: class folders, a table, a caption file, shards and so on.
        templates: prompts of the classifier.
        classes: of a model: what is answered among. None: those that lie there.
        pictures: the folder that a table or caption file names pictures in, if it is elsewhere.

    Raises:
        BrokenInput: there is nothing, or it is damaged.
        UsageError: nothing that is read was recognised, or it has splits: one has to be named.
    """
    found = look(path, pictures)
    settings: Any = TypeAdapter(DataSource).validate_python(found.data)
    if found.validation is not None:
        raise UsageError(
            f"{path} has splits, and only one is to be scored: name its folder or file, as in "
            f"--data {Path(path) / 'test'}"
        )
    if isinstance(settings, HeldOut):
        settings = settings.model_copy(update={"split": "all"})
    elif found.own_validation:
        settings = settings.model_copy(update={"split": "test"})
    classify = settings.task == "classification"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).resolve().name).strip("-.") or "data"
    return Suite(
        name=f"data-{name}",
        description=f"{found.what} at {path}",
        templates=templates,
        tasks=["classification" if classify else "retrieval"],
        datasets=[
            SuiteDataset(
                name=name,
                role="in-distribution",
                data=settings,
                classes=list(classes) if classify and classes is not None else None,
            )
        ],
    )
