"""The order of the package: a module imports only what stands before it."""

import ast
import re
from pathlib import Path

import pytest

from radapter import recipe
from radapter.registry import METHODS

ROOT = Path(__file__).parents[1]
ORDER = (
    "errors", "registry", "versions", "names", "files", "quiet", "classes", "precision",
    "processors", "distributed", "recipe_errors", "recipe_yaml", "recipe_schema", "recipe_calls",
    "data", "recipe", "run", "init", "heads", "models", "losses", "methods", "objectives",
    "optimizers", "merging", "bundle", "runtimes", "evaluation", "training", "inference", "export",
    "benchmarking", "study", "reporting",
)  # fmt: skip
LIBRARY = sorted(
    p
    for p in (ROOT / "radapter").rglob("*.py")
    if p.name != "__main__.py"  # the command itself
)
SOURCES = [*LIBRARY, *sorted((ROOT / "radapter_cli").rglob("*.py"))]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imported(path, for_types=False):
    """Dotted names of every import, wherever it stands; those of `from a import b` as `a.b`.

    Args:
        for_types: only those under `if TYPE_CHECKING`.
    """
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
    typed = [n for n in blocks if ast.unparse(n.test) == "TYPE_CHECKING"]
    for node in [n for top in (typed if for_types else [tree]) for n in ast.walk(top)]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*inside, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def parts_of(path):
    """The parts of radapter that a file imports, such as {"errors", "run"}."""
    names = [name.split(".") for name in imported(path)]
    inside = {name[1] for name in names if name[0] == "radapter" and len(name) > 1}
    return inside - {"__version__"}


def part_of(path):
    return path.relative_to(ROOT / "radapter").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_module_imports_only_what_stands_before_it(path):
    own = part_of(path)
    if own == "__init__":
        assert not parts_of(path)
        return
    assert own in ORDER
    later = {p for p in parts_of(path) - {own} if ORDER.index(p) >= ORDER.index(own)}
    assert not later


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_never_imports_the_command_line(path):
    assert not [name for name in imported(path) if name.split(".")[0] == "radapter_cli"]


@pytest.mark.parametrize("own", ["losses", "methods", "models"])
def test_the_mathematics_knows_no_recipes_runs_or_data(own):
    paths = [path for path in LIBRARY if part_of(path) == own]
    assert paths
    for path in paths:
        sections = {"recipe", "recipe_errors", "recipe_yaml", "recipe_calls"}
        assert not parts_of(path) & (sections | {"run", "data"}), name_of(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_short_and_named_for_what_is_in_them(path):
    assert path.stem not in ("utils", "util", "common", "helpers", "misc")
    assert not path.stem.startswith("base_")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_every_method_of_the_recipe_is_registered():
    definitions = recipe.Recipe.model_json_schema()["properties"]["method"]["discriminator"]
    assert set(definitions["mapping"]) == set(METHODS)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_the_documentation_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    top = "radapter|radapter_cli|tests|benchmarks|recipes|docs|examples"
    named = re.findall(rf"`((?:{top})/[\w./-]+\.(?:py|yaml|md|sh))\b", text)
    modules = re.findall(r"`radapter\.([a-z]\w*)\.", text)
    named += [f"radapter/{name}.py" for name in modules if not (ROOT / "radapter" / name).is_dir()]
    assert [n for n in named if "my_" not in n and not (ROOT / n).exists()] == []
