"""The reference of recipes, suites and studies: their JSON Schema as Markdown tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from radapter import recipe
from radapter.data.settings import Data, HeldOut, Unlabelled
from radapter.evaluation.suite import Suite
from radapter.recipe_schema import json_schema
from radapter.registry import HEADS, METHODS, OPTIMIZERS, SOURCES, TERMS, load
from radapter.study.schema import Study

Schema = dict[str, Any]
RECIPE, SUITE, STUDY = json_schema(recipe.Recipe), json_schema(Suite), json_schema(Study)
SHARED_KEYS = (Data, HeldOut, Unlabelled, recipe.Optimisation)
SECTIONS: dict[str, Schema] = {
    **{"Recipe": RECIPE, "Suite": SUITE, "Study": STUDY},
    **{
        name: section
        for schema in (RECIPE, SUITE, STUDY)
        for name, section in schema["$defs"].items()
        if not name.startswith("Unlabelled")  # a source, with the keys of `Unlabelled`
    },
    **{kind.__name__: json_schema(kind) for kind in SHARED_KEYS},
}
"""Every section, by the name that it has in the schema"""
SHARED = {
    "Data": "Keys of all sources",
    "HeldOut": "Keys of sources that hold out a share",
    "Unlabelled": "Further keys of unlabelled",
    "Optimisation": "Keys of all optimizers",
}
GROUPS = {
    "a method": METHODS,
    "a head": HEADS,
    "a term": TERMS,
    "an optimizer": OPTIMIZERS,
    "a source": SOURCES,
}
LINKS = {
    "a method": "methods",
    "a head": "heads",
    "a term": "objective",
    "an optimizer": "optimisation",
    "a source": "sources-of-data",
}
PLACES = ("method", "head", "data", "validation", "unlabelled", "objective", "optimisation")
"""Keys whose sections have headings of their own"""
OPTIMISATION = """\
```yaml
optimisation: {name: spd, lr: 1e-4, batch_size: 128, epochs: 10, decay: 0.5}
```

`optimisation` is one of these, by its `name`; without a name it is `adamw`."""
OBJECTIVE = """\
```yaml
objective:
  - {name: mpm-nce, margin: 0.05}
  - {name: retention, weight: 0.5}
```

`objective` is a list of terms, whose weighted sum is the loss. There is a short form too:
`objective: {margin: 0.05, retain: {weight: 0.5}}` is the same."""
SOURCES_TEXT = """\
`data`, `validation` and `unlabelled` are one of these, by their `source`; `unlabelled` has
[two keys more](#further-keys-of-unlabelled)."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {"string": "text", "boolean": "`true` or `false`", "null": "`null`"}


def recipe_keys() -> str:
    """Every section of a recipe, with its keys."""
    parts = ["## All keys", _table("Recipe")]
    parts += _below(["Recipe"], not_at=tuple(PLACES))
    parts += ["## Methods", "`method` is one of these, by its `name`."]
    for name in METHODS:
        parts += [_section(name), _example("method", name)]
    parts += _below(METHODS)
    parts += ["## Heads", "`head` is one of these, by its `name`."]
    parts += [_section(name) for name in HEADS]
    parts += ["## Objective", OBJECTIVE, _text("Objective"), _table("Objective", but=["mpm-nce"])]
    parts += [_section(name) for name in TERMS]
    parts += ["## Optimisation", OPTIMISATION, _section("Optimisation", but=[])]
    parts += [_section(name, but=["Optimisation"]) for name in OPTIMIZERS]
    parts += ["## Sources of data", SOURCES_TEXT]
    parts += [_section("Data"), _section("HeldOut", but=["Data"])]
    parts += [_section("Unlabelled"), *_below(["Data"])]
    for name in SOURCES:
        source = load(SOURCES, name)
        shared = ["Data", "HeldOut"] if issubclass(source, HeldOut) else ["Data"]
        parts.append(_section(source.__name__, but=shared))
        if not source.no_training:
            parts.append(_example("data", name))
    return "\n\n".join(parts)


def suite_keys() -> str:
    """Every section of a suite, with its keys, but for the sources of data."""
    parts = ["## Keys of a suite", _table("Suite")]
    return "\n\n".join([*parts, *_below(["Suite"], not_at=("data",))])


def study_keys() -> str:
    """Every section of a study, with its keys."""
    return "\n\n".join(["## Keys of a study", _table("Study"), *_below(["Study"])])


# ---------------------------------------------------------------- sections


def _below(names: Iterable[str], not_at: Iterable[str] = ()) -> list[str]:
    """The sections that are values of keys of other ones, and those below these, each once."""
    found: dict[str, None] = {}

    def look(name: str) -> None:
        for key, value in SECTIONS[name]["properties"].items():
            for inner in _named(value) if key not in not_at else ():
                if inner not in found:
                    found[inner] = None
                    look(inner)

    for name in names:
        look(name)
    return [_section(name) for name in found]


def _section(name: str, but: Iterable[str] = ()) -> str:
    return "\n\n".join([f"### {_heading(name)}", _text(name), _table(name, but)])


def _text(name: str) -> str:
    return SECTIONS[name]["description"]


def _heading(name: str) -> str:
    """What users know a section by: its name, or the key whose value it is."""
    title = SECTIONS[name]["title"]
    if name in SHARED or title in {*METHODS, *HEADS, *TERMS, *OPTIMIZERS, *SOURCES}:
        return SHARED.get(name, f"`{title}`")
    places = [
        (key, inside["title"], inner)
        for inside in SECTIONS.values()
        for key, value in inside["properties"].items()
        if len(inner := _named(value)) == 1
    ]
    key = next((key for key, _, inner in places if inner == [name]), name.lower())
    if all(inner == [name] for other, _, inner in places if other == key):
        return f"`{key}`"
    users = dict.fromkeys(f"`{title}`" for _, title, inner in places if inner == [name])
    return f"`{key}` of {', '.join(users)}"


def _link(name: str) -> str:
    heading = _heading({"Retain": "retention"}.get(name, name))  # which has the same keys
    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    return f"[{heading}](#{anchor})"


def _named(value: Schema) -> list[str]:
    """The sections that a key's value may be."""
    return list(dict.fromkeys(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(value))))


def _example(key: str, name: str) -> str:
    """A section from the first shipped recipe that has it; else one of the keys that are needed."""
    for path in recipe.shipped().values():
        text = path.read_text(encoding="utf-8")
        found = re.search(rf"^{key}:\n((?: .*\n)+)", text, re.MULTILINE)
        if found and re.match(rf"  (?:name|source): {name}\n", found[1]):
            lines = [re.sub(r"\s+#.*", "", line) for line in found[0].splitlines()]
            return "\n".join(["```yaml", *filter(None, lines), "```"])
    section = next(s for s in SECTIONS.values() if s["title"] == name)
    lines = [f"{key}:"]
    for inner, value in section["properties"].items():
        if value.get("const") == name or "examples" in value:
            lines.append(f"  {inner}: {value.get('const') or value['examples'][0]}")
    return "\n".join(["```yaml", *lines, "```"])


# ---------------------------------------------------------------- keys


def _table(name: str, but: Iterable[str] = ()) -> str:
    """The keys of a section, without those that are the same in other ones, to which it points."""
    shared = {key: value for other in but for key, value in SECTIONS[other]["properties"].items()}
    keys = SECTIONS[name]["properties"]
    needed_first = sorted(keys, key=lambda key: ("default" in keys[key], "const" not in keys[key]))
    lines = ['<div class="keys" markdown>', ""]
    lines += ["| key | value | default | what it is |", "| --- | --- | --- | --- |"]
    for key in needed_first:
        value = keys[key]
        text = " ".join(value["description"].split())
        if text == " ".join(_text(name).split()):  # the key that says which section this is
            text = ""
        if shared.get(key) != value:
            lines.append(f"| `{key}` | {_type(value)} | {_default(value)} | {text} |")
    lines += ["", "</div>"]
    if but:
        lines += ["", f"And {', and '.join(f'the {_lower(_link(other))}' for other in but)}."]
    return "\n".join(lines)


def _lower(link: str) -> str:
    return link.replace("[Keys", "[keys") if "Keys" in link else f"keys of {link}"


def _type(value: Schema) -> str:
    if "discriminator" in value:
        known = set(value["discriminator"]["mapping"])
        group = next(name for name, table in GROUPS.items() if set(table) == known)
        return f"[{group}](#{LINKS[group]})"
    if {"anyOf", "oneOf", "enum", "const"} & value.keys():
        *first, last = _choices(value)
        return f"{', '.join(first)} or {last}" if first else last
    if "$ref" in value:
        return _link(value["$ref"].rpartition("/")[2])
    if "prefixItems" in value:
        each = dict.fromkeys(map(_type, value["prefixItems"]))
        return f"list of {len(value['prefixItems'])}: {'; '.join(each)}"
    if "items" in value:
        return f"list of {_type(value['items'])}"
    if "additionalProperties" in value:
        inner = value["additionalProperties"]
        return "mapping" if inner is True else f"mapping to {_type(inner)}"
    if "type" not in value:
        return "values"
    bounds = [f"{sign} {value[bound]:.10g}" for bound, sign in BOUNDS.items() if bound in value]
    return " ".join([TYPES.get(value["type"], value["type"]), ", ".join(bounds)]).strip()


def _choices(value: Schema) -> list[str]:
    """What a value may be, where that is one of several things."""
    if "discriminator" not in value and ("anyOf" in value or "oneOf" in value):
        return [of for one in value.get("anyOf", value.get("oneOf")) for of in _choices(one)]
    if "const" in value or "enum" in value:
        return [f"`{one}`" for one in value.get("enum", [value.get("const")])]
    return [_type(value)]


def _default(value: Schema) -> str:
    if "default" not in value:
        return "required"
    default = value["default"]
    if isinstance(default, dict) and default:  # a section: what differs from its own defaults
        own = SECTIONS[_named(value)[0]]["properties"]
        default = {key: of for key, of in default.items() if own[key].get("default") != of}
        inside = ", ".join(f"{key}: {json.dumps(of)}" for key, of in default.items())
        return f"`{{{inside}}}`" if inside else "its own"
    plain = isinstance(default, str) and default
    return f"`{default if plain else json.dumps(default, ensure_ascii=False)}`"
