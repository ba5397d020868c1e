"""pydantic's errors as people need them: file, line, column, and the nearest valid key."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel


def explain(
    schema: type[BaseModel],
    tree: Any,
    name: str,
    overridden: set[tuple[str | int, ...]],
    error: Any,
) -> str:
    """One line for one pydantic error: where it is, what is wrong, the nearest valid key."""
    location, fields = _locate(schema, tree, error["loc"])
    dotted = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(fields)}"
        problem = f"unknown key '{dotted}'{hint}"
    elif error["type"] == "missing":
        problem = f"'{dotted}' is missing"
    elif error["type"] == "union_tag_not_found":
        problem = f"'{dotted}.{error['ctx']['discriminator'].strip(chr(39))}' is missing"
    elif error["type"] == "union_tag_invalid":
        expected = [t.strip(" '") for t in error["ctx"]["expected_tags"].split(",")]
        close = difflib.get_close_matches(str(error["ctx"]["tag"]), expected, n=1, cutoff=0.4)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        key = error["ctx"]["discriminator"].strip("'")
        location = (*location, key)
        dotted = f"{dotted}.{key}"
        problem = f"{dotted}: unknown '{error['ctx']['tag']}'{hint} (known: {', '.join(expected)})"
    else:
        message = error["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
        problem = f"{dotted}: {message[0].lower()}{message[1:]}, found {error['input']!r}"
        if error["type"] == "value_error":
            problem = f"{dotted}: {message}"
    written = _in_file(tree, location)
    if any(
        location[: len(keys)] == keys or (not written and keys[: len(location)] == location)
        for keys in overridden
    ):
        return f"override {dotted}: {problem}"
    line, column = _position(tree, location)
    return f"{name}:{line}:{column}: {problem}"


def _locate(
    schema: type[BaseModel], tree: Any, loc: tuple[Any, ...]
) -> tuple[tuple[Any, ...], list[str]]:
    """The path in the file (union tags left out) and the keys valid at its last section."""
    path: list[Any] = []
    node, current = tree, schema
    fields = list(schema.model_fields)
    for part in loc:
        branch = _branch(current, path, part) if isinstance(part, str) else None
        if branch is not None:  # first: a tag may be a key as well, such as `shards`
            fields = list(branch.model_fields)
            current = branch
            continue
        found = isinstance(node, dict) and part in node
        unknown = not found and isinstance(part, str) and part not in fields
        if unknown and (part != loc[-1] or not isinstance(node, dict)):
            continue  # an internal name of pydantic's, such as a union member
        path.append(part)
        if found or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            node = node[part]
        else:
            node = None
        inner = _section(current, part)
        if inner is not None:
            current, fields = inner, list(inner.model_fields)
    return tuple(path), fields


def _members(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in typing.get_args(annotation) for m in _members(a)]


def _section(schema: type[BaseModel], key: Any) -> type[BaseModel] | None:
    field = schema.model_fields.get(key) if isinstance(key, str) else None
    members = _members(field.annotation) if field else []
    return members[0] if len(members) == 1 else None


def _branch(schema: type[BaseModel], path: list[Any], tag: str) -> type[BaseModel] | None:
    """The member of a tagged union (`method`, `data`) that `tag` names."""
    keys = [part for part in path if isinstance(part, str)]
    field = schema.model_fields.get(keys[-1]) if keys else None
    for member in _members(field.annotation) if field else []:
        for candidate in member.model_fields.values():
            if tag in typing.get_args(candidate.annotation):
                return member
    return None


def _in_file(tree: Any, path: tuple[Any, ...]) -> bool:
    """Whether every key of `path` was read from the file, not made by an override."""
    for part in path:
        marks = getattr(tree, "lc", None)
        if marks is None or (isinstance(tree, dict) and part not in (marks.data or {})):
            return False
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _position(tree: Any, path: tuple[Any, ...]) -> tuple[int, int]:
    """Line and column, from 1, of the deepest part of `path` that is in the file."""
    line, column, node = 0, 0, tree
    for part in path:
        marks = getattr(node, "lc", None)
        try:
            if isinstance(node, dict):
                line, column = marks.key(part) if marks else (line, column)
            else:
                line, column = marks.item(part) if marks else (line, column)
            node = node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return line + 1, column + 1
