"""JSON files of data sets, read whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radapter.data.settings import MissingData
from radapter.errors import BrokenInput


def read_json(path: Path, key: str = "data.root") -> Any:
    """What a JSON file holds.

    Args:
        key: the key of a recipe that says where it is.

    Raises:
        MissingData: there is no such file.
        BrokenInput: it holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingData(f"No such file: {path}. Correct {key}, or give --data-root.") from None
    except (OSError, ValueError) as error:
        raise BrokenInput(f"{path} is not valid JSON: {error}.") from None


def read_object(path: Path, key: str = "data.root") -> dict[str, Any]:
    """The object in a JSON file; arguments and errors as of `read_json`."""
    content = read_json(path, key)
    if not isinstance(content, dict):
        raise BrokenInput(f"{path} is not a JSON object.")
    return content


def read_list(path: Path, keys: Sequence[str] = ()) -> list[Any]:
    """The list in a JSON file, whose entries have at least these keys; errors as of `read_json`."""
    content = read_json(path)
    if not isinstance(content, list):
        raise BrokenInput(f"{path} is not a JSON list.")
    for number, entry in enumerate(content if keys else ()):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise BrokenInput(f"{path}: entry {number} has no {missing[0]}.")
    return content
