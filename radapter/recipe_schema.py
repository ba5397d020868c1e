"""JSON Schema of recipes and suites, for editors and for the reference in the manual.

A key is described where it is defined: by the string below it in its section's class, or in `Args:`
of the function that the section calls (`radapter.registry`).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema


def json_schema(section: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a section, such as `Recipe`, with all keys described."""
    schema = section.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


class _Described(GenerateJsonSchema):
    """pydantic's schema with descriptions, and with titles that users know."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        content = super().model_schema(schema)
        content["description"] = _unwrapped(content.get("description", ""))
        texts = described_keys(schema["cls"])
        for key, value in content.get("properties", {}).items():
            if key in texts:
                value["description"] = texts[key]
            elif "const" in value and key in content.get("required", ()):  # it names the section
                content["title"] = value["const"]
                value.setdefault("description", content["description"])
        return content


def described_keys(section: type[BaseModel]) -> dict[str, str]:
    """The string below each key in a section's class, or else in a class that this one extends."""
    texts: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if kind.__module__.startswith("pydantic") or not issubclass(kind, BaseModel):
            continue
        try:
            (tree,) = ast.parse(inspect.getsource(kind)).body
        except (OSError, TypeError):  # made by `create_model`, which is told its descriptions
            continue
        assert isinstance(tree, ast.ClassDef)
        for key, below in itertools.pairwise(tree.body):
            if isinstance(key, ast.AnnAssign) and isinstance(below, ast.Expr):
                texts[ast.unparse(key.target)] = _unwrapped(ast.literal_eval(below.value))
    return {key: text for key, text in texts.items() if key in section.model_fields}


def _unwrapped(text: str) -> str:
    """A docstring with each paragraph in one line."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text))
