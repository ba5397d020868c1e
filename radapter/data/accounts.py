"""What is used of the data of a recipe or run, and what is left out: for JSON, and in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from radapter.data.copies import find_copies, lines_of_copies
from radapter.data.dataset import Dataset, open_data
from radapter.data.left_out import lines_of_summary
from radapter.errors import RadapterError
from radapter.recipe import Recipe

FILE = "data.json"
SIDES = ("train", "validation")


def accounts_of(recipe: Recipe, train: Dataset | None = None) -> dict[str, Any]:
    """A `Dataset.account` of `train` and, if any is held out, of `validation`, and `copies`: see
    `find_copies`.

    Args:
        train: the training data, if it is open already.

    Raises:
        BrokenInput: the training data is missing or damaged.
    """
    train = open_data(recipe.data) if train is None else train
    held = None
    if (settings := recipe.validation_data()) is not None:
        # A validation section has to be there; a share that is held out may be nothing.
        missing = () if recipe.validation is not None else (RadapterError,)
        with contextlib.suppress(*missing):
            held = open_data(settings)
    sides = {"train": train} if held is None else {"train": train, "validation": held}
    accounts = {name: side.account() for name, side in sides.items()}
    return accounts | {"copies": find_copies(train, held)}


def read_accounts(run: Path) -> dict[str, Any]:
    """The same of a run's training, from data.json, with `broken`, messages about pictures that
    could not be read, and without copies. Runs of older versions have none."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((run / FILE).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def lines_of_accounts(accounts: dict[str, Any]) -> list[str]:
    """What there is to say of them to people: nothing, if all is used."""
    lines: list[str] = []
    for name in SIDES:
        if name not in accounts:
            continue
        said = [*lines_of_summary(accounts[name]["left_out"]), *accounts[name]["notes"]]
        # Both sides of one source have left out the same.
        new = [line for line in said if line not in lines]
        lines += new if name == "train" else [f"{name}: {line}" for line in new]
    return lines + lines_of_copies(accounts.get("copies", {}))
