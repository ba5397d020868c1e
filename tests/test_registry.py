"""Every name that a recipe may call is there, and its section is its signature."""

import copy
import inspect
import pickle
import subprocess
import sys
import typing

import pytest

from radapter import recipe, registry

TABLES = {"attach": registry.METHODS, "term": registry.TERMS, "optimizer": registry.OPTIMIZERS}
CALLED = [(function, name) for function, table in TABLES.items() for name in table]


@pytest.mark.parametrize(("function", "name"), CALLED)
def test_a_section_is_the_signature_of_what_it_calls(function, name):
    table = TABLES[function]
    called = getattr(registry.load(table, name), function)
    fields = dict(registry.schema(name, table[name], function).model_fields)
    assert fields.pop("name").annotation == typing.Literal[name]
    types = typing.get_type_hints(called, include_extras=True)
    arguments = inspect.signature(called).parameters.values()
    keys = {a.name: a.default for a in arguments if a.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {key: field.default for key, field in fields.items()} == keys
    for key, field in fields.items():
        plain = typing.get_type_hints(called)[key] if field.metadata else types[key]
        assert field.annotation == plain, key


def test_a_section_is_pickled_and_copied():
    section = recipe.parse("{name: a, model: b, method: {name: lora}, data: {source: emoji}}")
    assert pickle.loads(pickle.dumps(section)) == section
    assert copy.deepcopy(section) == section


def test_reading_a_recipe_imports_no_torch():
    code = (
        "import sys; from radapter import recipe; "
        "[recipe.load(path) for path in recipe.shipped().values()]; print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
