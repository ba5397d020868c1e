"""The reference of recipes has every key, and what it shows is true."""

import re
import sys

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from test_layout import ROOT

from radapter import recipe as recipes
from radapter.data.settings import HeldOut
from radapter.errors import UsageError
from radapter.registry import OPTIMIZERS, SOURCES, load

sys.path.insert(0, str(ROOT / "docs"))
import recipe_reference  # a module of docs/, as mkdocs' hooks are

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
WHOLE = {"Recipe": "## All keys", "Suite": "## Keys of a suite", "Study": "## Keys of a study"}
OF_SOURCES = "### Keys of all sources", "### Keys of sources that hold out a share"
"""Headings of keys that stand once for many sources"""


def keys_by_heading(text):
    """The keys in the tables of each heading."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)
    return {
        heading: set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))
        for heading, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def heading_of(name):
    if name in WHOLE:
        return WHOLE[name]
    if name == "Objective":
        return "## Objective"
    return f"### {recipe_reference._heading('retention' if name == 'Retain' else name)}"


def test_every_key_is_in_the_reference():
    made = recipe_reference.recipe_keys, recipe_reference.suite_keys, recipe_reference.study_keys
    found = keys_by_heading("\n\n".join(part() for part in made))
    sources = {load(SOURCES, name).__name__: load(SOURCES, name) for name in SOURCES}
    missing = []
    for name, section in recipe_reference.SECTIONS.items():
        there = set(found[heading_of(name)])
        if name in sources:
            there |= found[OF_SOURCES[0]]
            there |= found[OF_SOURCES[1]] if issubclass(sources[name], HeldOut) else set()
        there |= found[OF_SOURCES[0]] if name == "HeldOut" else set()
        there |= found["### `mpm-nce`"] if name == "Objective" else set()
        there |= found["### Keys of all optimizers"] if name in OPTIMIZERS else set()
        missing += [f"{name}.{key}" for key in section["properties"] if key not in there]
    assert missing == []


def test_every_example_is_part_of_a_recipe():
    validator = Draft202012Validator(recipe_reference.RECIPE)
    examples = re.findall(r"```yaml\n(.*?)```", PAGE + recipe_reference.recipe_keys(), re.DOTALL)
    assert len(examples) > 15
    base = {"name": "a", "model": "b", "method": {"name": "full"}, "data": {"source": "emoji"}}
    for text in examples:
        tree = base | YAML(typ="safe").load(text)
        validator.validate(tree)
        recipes.Recipe.model_validate(tree)


def test_the_short_form_of_an_objective_is_the_list():
    base = "name: a\nmodel: b\nmethod: {name: full}\ndata: {source: emoji}\n"
    (long,) = re.findall(r"```yaml\n(.*?)```", recipe_reference.OBJECTIVE, re.DOTALL)
    (short,) = re.findall(r"`(objective: .*?)`", recipe_reference.OBJECTIVE)
    assert recipes.parse(base + long).terms() == recipes.parse(base + short).terms()


def test_the_mistakes_are_what_is_said():
    (text,) = re.findall(r"```yaml\n(name: mine\nmodel.*?)```", PAGE, re.DOTALL)
    (said,) = re.findall(r"```text\n(mine.*?)\n```", PAGE, re.DOTALL)
    wrong = text.replace("name: r-adapter", "name: r-adaptor").replace("lr: 5e-4", "lr: fast")
    with pytest.raises(UsageError) as caught:
        recipes.parse(wrong, "mine.yaml")
    assert str(caught.value) == said


def test_a_default_that_a_section_has_of_its_own_is_shown():
    (row,) = re.findall(r"^\| `average` .*$", recipe_reference._section("lora"), re.MULTILINE)
    assert "`{momentum: 0.0}`" in row
