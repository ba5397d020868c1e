"""Files that say what classes are called: classes.txt, class_index.json and their like."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radapter.errors import BrokenInput

ID = r"\d+|n\d{8}"  # numbers and WordNet's ids


def is_id(name: str) -> bool:
    """Whether a name is a number or an id of WordNet: no word for a prompt."""
    return re.fullmatch(ID, name) is not None


def read_names(path: Path) -> dict[str, str]:
    """What each id is called.

    Lines are names alone, the first of class 0, or an id and a name. JSON is a list of names, from
    ids to names, from names to numbers, or ImageNet's class_index.json: {"0": [wordnet id, name]}.

    Raises:
        BrokenInput: there is no such file, or it has another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else _of_lines(text)
    except (OSError, ValueError) as error:
        raise BrokenInput(f"{path} cannot be read: {error}") from None
    names = _of(content)
    if not names or not all(isinstance(name, str) and name.strip() for name in names.values()):
        raise BrokenInput(f"{path} has no names of classes in a form that is known here.")
    return {key.lstrip("0") or "0" if key.isdigit() else key: n for key, n in names.items()}


def called(ids: Sequence[str], names: dict[str, str], path: Path) -> list[str]:
    """The names of some ids.

    Raises:
        BrokenInput: one has no name.
    """
    keys = [key.lstrip("0") or "0" if key.isdigit() else key for key in ids]
    for key, written in zip(keys, ids, strict=True):
        if key not in names:
            raise BrokenInput(
                f"{path} has no name for class {written}: it names {len(names)}, from "
                f"{next(iter(names))} on."
            )
    return [names[key].replace("_", " ").strip() for key in keys]


def _of_lines(text: str) -> dict[str, str] | list[str]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    pairs = [re.fullmatch(rf"({ID})[\s,:]+(.+)", line) for line in lines]
    if all(pairs):
        return {pair.group(1): pair.group(2) for pair in pairs if pair}
    return lines


def _of(content: Any) -> dict[str, Any]:
    if isinstance(content, list):
        return {str(i): name for i, name in enumerate(content)}
    if not isinstance(content, dict):
        return {}
    names: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, list) and len(value) == 2:  # number: [wordnet id, name]
            names |= {str(key): value[1], str(value[0]): value[1]}
        elif isinstance(value, int):
            names[str(value)] = key
        else:
            names[str(key)] = value
    return {key: name if key.isdigit() else _first(name) for key, name in names.items()}


def _first(name: Any) -> Any:
    """WordNet's names are lists of synonyms: "tench, Tinca tinca"."""
    return name.split(",")[0] if isinstance(name, str) else name
