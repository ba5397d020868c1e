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


def names_for(ids: Sequence[str], path: Path) -> list[str]:
    """The names that a file has for some ids.

    A list of names alone begins with class 0; or with class 1, where no class is called 0 and there
    are just as many names as the last class's number.

    Raises:
        BrokenInput: the file cannot be read, or one of the ids has no name.
    """
    names, is_list = read_names(path)
    keys = [_plain(key) for key in ids]
    numbers = [int(key) for key in keys if key.isdigit()]
    if is_list and numbers and 0 not in numbers and max(numbers) == len(names):
        names = {str(int(number) + 1): name for number, name in names.items()}
    for key, written in zip(keys, ids, strict=True):
        if key not in names:
            raise BrokenInput(
                f"{path} has no name for class {written}: it names {len(names)}, from "
                f"{next(iter(names))} on."
            )
    return [names[key].replace("_", " ").strip() for key in keys]


def may_begin_with_one(ids: Sequence[str], path: Path) -> bool:
    """Whether it is not sure which class a list of names begins with: there is one name more than
    the last class's number, and no class is called 0.

    Raises:
        BrokenInput: the file cannot be read.
    """
    names, is_list = read_names(path)
    numbers = [int(key) for key in ids if key.isdigit()]
    return is_list and bool(numbers) and 0 not in numbers and max(numbers) < len(names)


def _plain(key: str) -> str:
    return key.lstrip("0") or "0" if key.isdigit() else key


def read_names(path: Path) -> tuple[dict[str, str], bool]:
    """What each id is called, and whether the file is a list of names without ids.

    Lines are names alone, or an id and a name. JSON is a list of names, from
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
        raise BrokenInput(
            f"{path} is not a list of class names: write one name a line, or JSON: a list of "
            "names, or an object from class numbers to names."
        )
    return {_plain(key): name for key, name in names.items()}, isinstance(content, list)


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
    for key, name in names.items():
        if isinstance(name, str) and not key.isdigit():
            names[key] = name.split(",")[0]  # of WordNet's synonyms: "tench, Tinca tinca"
    return names
