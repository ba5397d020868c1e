"""YAML as a tree that knows its lines, and `key.sub=value`: one value set in such a tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from radapter.errors import UsageError

Keys = tuple[str | int, ...]


def read_text(text: str, name: str) -> Any:
    """The tree of a YAML text, with positions; `name` stands in error messages for the file.

    Raises:
        UsageError: it is no YAML, or no mapping.
    """
    try:
        tree = YAML().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = (error.problem or "not valid YAML").split("\n")[0]
        raise UsageError(f"{where}: {problem}") from None
    except Exception as error:  # ruamel raises plain ValueErrors for some malformed scalars
        raise UsageError(f"{name}: not valid YAML: {error}") from None
    if tree is None:
        raise UsageError(f"{name}: the file is empty")
    if not isinstance(tree, dict):
        found = "a list" if isinstance(tree, list) else "a single value"
        raise UsageError(f"{name}:1:1: expected `key: value` lines, found {found}")
    return tree


def read_file(path: str | Path) -> Any:
    """The tree of a YAML file, with positions, for `validate`."""
    try:
        return read_text(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def override(tree: dict[str, Any], item: str) -> Keys:
    """Set `key.sub=value` in the tree and return the path that was set.

    A part that stands in a list is the number of an entry, from 0: `objective.1.weight=2`.

    Raises:
        UsageError: it is not of this form, or leads through a value.
    """
    path, equals, text = item.partition("=")
    parts = [part.strip() for part in path.split(".")]
    if not equals or not all(parts):
        raise UsageError(f"override '{item}': expected key.sub=value, such as optimisation.lr=1e-3")
    try:
        value = YAML(typ="safe").load(text)
    except Exception:
        raise UsageError(f"override '{item}': the value is not valid YAML") from None
    node: Any = tree
    keys: list[str | int] = []
    for part, inner in zip(parts, [*parts[1:], None], strict=True):
        if isinstance(node, list):
            keys.append(_entry(node, part, keys, item))
        elif isinstance(node, dict):
            keys.append(part)
        else:
            raise UsageError(f"override '{item}': '{keys[-1]}' is a value, not a section")
        if inner is None:
            node[keys[-1]] = value
        elif isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[keys[-1]]
    return tuple(keys)


def _entry(entries: list[Any], part: str, keys: list[str | int], item: str) -> int:
    if part.isdecimal() and int(part) < len(entries):
        return int(part)
    raise UsageError(
        f"override '{item}': {'.'.join(map(str, keys))} has {len(entries)} entries, numbered from "
        f"0, and none is '{part}'"
    )
