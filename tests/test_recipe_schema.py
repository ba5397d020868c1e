"""JSON Schema of recipes, suites and studies: whole, described, and the same as what ships."""

import copy
import json

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from radapter import init, registry
from radapter import recipe as recipes
from radapter.evaluation.suite import FOLDER, Suite, shipped_suites
from radapter.recipe import Recipe
from radapter.recipe_schema import json_schema
from radapter.study.schema import Study, shipped_studies

KINDS = {"recipe": Recipe, "suite": Suite, "study": Study}
SHIPPED = {"recipe": recipes.shipped(), "suite": shipped_suites(), "study": shipped_studies()}
FILES = {
    "recipe": SHIPPED["recipe"]["emoji"].parent,
    "suite": FOLDER,
    "study": SHIPPED["study"]["emoji"].parent,
}
EACH = [(kind, name) for kind, known in SHIPPED.items() for name in known]
EDITORS = "# yaml-language-server: $schema="


@pytest.fixture(scope="module")
def schemas():
    return {name: json_schema(section) for name, section in KINDS.items()}


def sections(schema):
    """Every section of a schema by its title."""
    return {part["title"]: part for part in (schema, *schema["$defs"].values())}


def read(text):
    return YAML(typ="safe").load(text)


def problems(schema, tree):
    """Where a tree is against the schema, and the errors of the alternatives below."""
    found = list(Draft202012Validator(schema).iter_errors(tree))
    for error in found:
        found.extend(error.context)
    return [(".".join(map(str, error.absolute_path)), error.message) for error in found]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_schema_and_closed(schemas, kind):
    Draft202012Validator.check_schema(schemas[kind])
    assert {s["additionalProperties"] for s in sections(schemas[kind]).values()} == {False}


@pytest.mark.parametrize("kind", KINDS)
def test_every_section_and_key_is_described(schemas, kind):
    """By the string below it in its class, or by `Args:` of the function that the section calls."""
    without = []
    for title, section in sections(schemas[kind]).items():
        described = {key: value.get("description") for key, value in section["properties"].items()}
        for key, text in {"": section.get("description"), **described}.items():
            if not text or not text.endswith((".", ".)")):
                without.append(f"{title}.{key}: {text}")
    assert without == []


def test_nothing_that_is_registered_is_missing(schemas):
    known = {*registry.METHODS, *registry.SOURCES, *registry.TERMS, *registry.OPTIMIZERS}
    assert known <= set(sections(schemas["recipe"]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_beside_what_ships_is_up_to_date(schemas, kind):
    """If it is not: `radapter recipes schema recipe`, `suite` or `study`, into the file."""
    file = FILES[kind] / "schema.json"
    written = file.read_text(encoding="utf-8")
    command = f"radapter recipes schema {kind} > {file.relative_to(FOLDER.parents[2])}"
    assert json.loads(written) == schemas[kind], f"type: {command}"


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_what_ships_names_its_schema_and_is_valid(schemas, kind, name):
    path = SHIPPED[kind][name]
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith(EDITORS)
    named = path.parent / first.removeprefix(EDITORS)
    assert named.resolve() == (FILES[kind] / "schema.json").resolve()
    assert problems(schemas[kind], read(text)) == []


@pytest.mark.parametrize("name", recipes.shipped())
def test_a_recipe_with_all_its_defaults_is_valid(schemas, name):
    whole = recipes.dump(recipes.load(recipes.shipped()[name]))
    assert problems(schemas["recipe"], read(whole)) == []


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (registry.METHODS, "method"),
        (registry.TERMS, "objective"),
        (registry.OPTIMIZERS, "optimisation"),
    ],
)
def test_examples_are_valid(schemas, table, key):
    for name in table:
        for example in registry.load(table, name).EXAMPLES:
            call = {"name": name, **example}
            call |= {"average": call["average"].model_dump()} if "average" in call else {}
            tree = read(recipes.shipped()["emoji"].read_text(encoding="utf-8"))
            tree[key] = [call] if key == "objective" else call
            assert problems(schemas["recipe"], tree) == [], call


def test_what_init_writes_is_valid(schemas, shapes):
    assert problems(schemas["recipe"], read(init.start(str(shapes)).text)) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nmae", "a", "'nmae' was unexpected"),
        ("optimisation.lrr", 1, "'lrr' was unexpected"),
        ("method.rnak", 8, "'rnak' was unexpected"),
        ("method.average.momentun", 0.9, "'momentun' was unexpected"),
        ("data.rot", "a", "'rot' was unexpected"),
        ("optimisation.lr", "fast", "'fast' is not of type 'number'"),
        ("optimisation.lr", 0, "0 is less than or equal to the minimum of 0"),
        ("optimisation.betas", [0.9, 0.98, 0.99], "[0.9, 0.98, 0.99] is too long"),
        ("optimisation.batch_size", 2.5, "2.5 is not of type 'integer'"),
        ("method.rank", 0, "0 is less than the minimum of 1"),
        ("method.name", "r-adaptor", "'r-adapter' was expected"),
        ("data.templates", [], "[] should be non-empty"),
        ("objective", [{"name": "retention", "weight": 0}], "0 is less than or equal to"),
        ("objective.retain", {"pol": 2}, "'pol' was unexpected"),
    ],
)
def test_what_is_wrong_is_refused(schemas, path, value, message):
    tree = read(recipes.shipped()["emoji"].read_text(encoding="utf-8"))
    assert problems(schemas["recipe"], tree) == []
    wrong = copy.deepcopy(tree)
    *sections, key = path.split(".")
    node = wrong
    for section in sections:
        node = node[section]
    node[key] = value
    found = [text for _, text in problems(schemas["recipe"], wrong)]
    assert any(message in text for text in found), found


def test_a_wrong_suite_is_refused(schemas):
    tree = read(shipped_suites()["emoji-shifts"].read_text(encoding="utf-8"))
    tree["tasks"] = ["clasification"]
    tree["datasets"][0]["rol"] = "seen"
    found = [text for _, text in problems(schemas["suite"], tree)]
    assert any("'clasification' is not one of" in text for text in found)
    assert any("'rol' was unexpected" in text for text in found)
