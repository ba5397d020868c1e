"""A folder or file of one's own as a suite of one data set: `radapter eval --data`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from radapter.data import open_data
from radapter.data.opening import DataSource
from radapter.data.settings import Data, HeldOut, Templates
from radapter.errors import UsageError
from radapter.evaluation.scores import task_for
from radapter.evaluation.suite import Suite
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.init import look
from radapter.init.checking import items_of
from radapter.init.splits import Chosen, Doubt, check_unmixed, split_of_name
from radapter.names import slug


def suite_of(
    path: str,
    templates: Templates,
    *,
    classes: Sequence[str] | None = None,
    pictures: str | None = None,
    trained: Data | None = None,
) -> Suite:
    """All that lies at a path, recognised as `radapter init` does.

    Args:
        path: class folders of pictures or videos, a table, a caption file, shards and so on.
        templates: prompts of the classifier.
        classes: of a model: what is answered among. None: those that lie there.
        pictures: the folder that a table or caption file names pictures in, if it is elsewhere.
        trained: what the model was trained on. None: it is read as `radapter init` writes it.

    Raises:
        BrokenInput: there is nothing, or it is damaged.
        UsageError: nothing that is read was recognised, or it has splits: one has to be named.
    """
    settings, what = _settings(path, pictures)
    if trained is not None:
        settings = settings.read_like(trained)
    classify = settings.task == "classification"
    name = slug(Path(path).resolve().name).strip("-.") or "data"
    return Suite(
        name=f"data-{name}",
        description=f"{what} at {path}",
        templates=templates,
        tasks=[task_for(settings.task)],
        datasets=[
            SuiteDataset(
                name=name,
                role="in-distribution",
                data=settings,
                classes=list(classes) if classify and classes is not None else None,
            )
        ],
    )


def _settings(path: str, pictures: str | None) -> tuple[Any, str]:
    """The data section for all that lies at a path, and what it is.

    Raises:
        UsageError: it is of several splits.
    """
    try:
        found = look(path, pictures)
        settings: Any = TypeAdapter(DataSource).validate_python(found.data)
        if found.chosen and (found.chosen.left or found.chosen.validation):
            raise UsageError(_several(path, found.chosen))
        settings = settings.scored()
        if settings is None:
            raise UsageError(f"{path} has no test split: name the folder or table to score.")
        if isinstance(settings, HeldOut) and not found.chosen:
            opened = open_data(settings)
            check_unmixed(opened.keys, path, items_of(opened))
    except Doubt as doubt:
        raise UsageError(
            f"{doubt} (--split and --task are options of `radapter init`; here name the folder or "
            "table of what is to be scored.)"
        ) from None
    return settings, found.what


def _several(path: str, chosen: Chosen) -> str:
    names = [chosen.train, *filter(None, [chosen.validation]), *chosen.left]
    places = [place for name in names if (place := Path(path) / name).exists()]
    rather = next((p for p in places if split_of_name(p.name) == "test"), None)
    some = f"{path} has splits ({', '.join(names[:5])}), and only one is to be scored: "
    if places:
        return some + f"name its folder or file, as in --data {rather or places[-1]}"
    return some + "give that one a folder or table of its own."
