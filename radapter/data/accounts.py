"""What is used of the data of a recipe or run, and what is left out: for JSON, and in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from radapter.data.copies import find_copies, lines_of_copies
from radapter.data.dataset import Dataset
from radapter.data.left_out import lines_of_summary
from radapter.data.opening import open_data
from radapter.data.settings import Data
from radapter.errors import RadapterError

FILE = "data.json"
SIDES = ("train", "validation", "unlabelled")


def accounts_of(
    train: Dataset,
    validation: Data | None,
    *,
    needed: bool,
    unlabelled: Dataset | None = None,
) -> dict[str, Any]:
    """A `Dataset.account` of `train` and, if any is held out, of `validation`, of `unlabelled` if
    there is some, and `copies`: see `find_copies`; `unlabelled_copies` are those held out that are
    unlabelled pictures, too.

    Args:
        needed: whether the validation data has to be there: a share that is held out may be
            nothing.

    Raises:
        BrokenInput: the validation data is needed, and missing or damaged.
    """
    try:
        held = None if validation is None else open_data(validation)
    except RadapterError:
        if needed:
            raise
        held = None
    sides = {"train": train} if held is None else {"train": train, "validation": held}
    if unlabelled is not None:
        sides["unlabelled"] = unlabelled
    accounts = {name: side.account() for name, side in sides.items()}
    accounts["copies"] = find_copies(train, held)
    if unlabelled is not None and held is not None:
        found = find_copies(unlabelled, held)
        accounts["unlabelled_copies"] = {n: of for n, of in found.items() if n != "train"}
    return accounts


def read_accounts(run: Path) -> dict[str, Any]:
    """The same of a run's training, from data.json, with `broken`, messages about pictures that
    could not be read, and without copies. Runs of older versions have none."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((run / FILE).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def lines_of_accounts(accounts: dict[str, Any]) -> list[str]:
    """Lines for people about these accounts; empty if all data is used."""
    lines: list[str] = []
    for name in SIDES:
        if name not in accounts:
            continue
        said = [*lines_of_summary(accounts[name]["left_out"]), *accounts[name]["notes"]]
        # Both sides of one source have left out the same.
        new = [line for line in said if line not in lines]
        lines += new if name == "train" else [f"{name}: {line}" for line in new]
    lines += lines_of_copies(accounts.get("copies", {}))
    copies = lines_of_copies(accounts.get("unlabelled_copies", {}))
    return lines + [f"unlabelled: {line}" for line in copies]
