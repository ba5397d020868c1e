"""What keeps the code open to change, measured: printed, and each with its limit."""

import ast
import re
from collections import Counter

from test_layout import LIBRARY, ROOT, SOURCES, imported, name_of

from radapter import registry

LONGEST_BODY = 80
MOST_ARGUMENTS = 9
ENTRIES = {"attach": registry.METHODS, "head": registry.HEADS, "term": registry.TERMS,
           "optimizer": registry.OPTIMIZERS}  # fmt: skip
CALLED_BY_RECIPES = {(file, name) for name, of in ENTRIES.items() for file in of.values()}


def functions(paths):
    """(file, function) of every function, methods too."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name_of(path), node


def body_lines(function):
    """From the first statement after the docstring to the last line."""
    body = function.body[ast.get_docstring(function) is not None :]
    return function.end_lineno - body[0].lineno + 1 if body else 0


def arguments(function):
    own = function.args
    named = [a.arg for a in (*own.posonlyargs, *own.args, *own.kwonlyargs)]
    more = [a for a in (own.vararg, own.kwarg) if a]
    return len([name for name in named if name not in ("self", "cls")]) + len(more)


def test_no_function_is_long(record_property):
    longest = sorted(
        ((body_lines(f), file, f.name) for file, f in functions(SOURCES)), reverse=True
    )
    lines, file, name = longest[0]
    record_property(
        "meter", f"longest body: {lines} lines, {name} in {file}; allowed {LONGEST_BODY}"
    )
    assert [entry for entry in longest if entry[0] > LONGEST_BODY] == []


def test_no_function_of_the_library_takes_many_arguments(record_property):
    # The keyword arguments of what is registered are keys of recipes; nobody passes them by hand.
    most = sorted(
        (
            (arguments(f), file, f.name)
            for file, f in functions(LIBRARY)
            if (file.removesuffix(".py").replace("/", "."), f.name) not in CALLED_BY_RECIPES
        ),
        reverse=True,
    )
    number, file, name = most[0]
    text = f"most arguments in the library: {number}, {name} in {file}; allowed {MOST_ARGUMENTS}"
    record_property("meter", text)
    assert [entry for entry in most if entry[0] > MOST_ARGUMENTS] == []


def import_graph():
    """Each module of the library and those that it imports, wherever the import stands.

    A package counts as its `__init__`; `from package import module` as that module. Imports for
    type checkers alone are none.
    """
    modules = {
        name_of(p).removesuffix(".py").removesuffix("/__init__").replace("/", "."): p
        for p in LIBRARY
    }
    graph = {}
    for name, path in modules.items():
        names = Counter(imported(path)) - Counter(imported(path, for_types=True))
        graph[name] = {
            n if n in modules else n.rpartition(".")[0]
            for n in names
            if n in modules or n.rpartition(".")[0] in modules
        } - {name}
    return graph


def circles(graph):
    """Sets of modules each of which imports, by others, itself."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for name in graph.get(waiting.pop(), ()):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return seen

    from_each = {name: reached(name) for name in graph}
    return {
        frozenset({name} | {n for n in to if name in from_each[n]})
        for name, to in from_each.items()
        if name in to
    }


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}


def test_no_modules_import_each_other(record_property):
    graph = import_graph()
    found = circles(graph)
    imports = sum(map(len, graph.values()))
    record_property("meter", f"{len(graph)} modules, {imports} imports, {len(found)} circles")
    assert not found


def names_a_source(node, classes, names):
    """`isinstance(x, FolderData)`, or `x.source == "folder"`, `in` and so on."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
        return any(word in classes for word in re.findall(r"\w+", ast.unparse(node.args[1])))
    if isinstance(node, ast.Compare):
        strings = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        return ".source" in ast.unparse(node) and any(s in names for s in strings)
    return False


def test_a_test_for_a_source_is_seen():
    for text in ("isinstance(d, (A, recipe.B))", "d.source == 'b'", "d.data.source in ('a', 'b')"):
        assert names_a_source(ast.parse(text, mode="eval").body, {"B"}, {"b"}), text
    for text in ("isinstance(d, A)", "d.source == e.source", "name == 'b'"):
        assert not names_a_source(ast.parse(text, mode="eval").body, {"B"}, {"b"}), text


def test_no_code_outside_the_data_tells_its_sources_apart(record_property):
    classes = {registry.load(registry.SOURCES, name).__name__ for name in registry.SOURCES}
    outside = [p for p in SOURCES if not p.is_relative_to(ROOT / "radapter" / "data")]
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in outside
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if names_a_source(node, classes, set(registry.SOURCES))
    ]
    record_property("meter", f"{len(found)} tests for a data source's name outside radapter/data")
    assert found == []


def test_lines_are_counted(record_property):
    counts = {
        top: sum(
            len(p.read_text(encoding="utf-8").splitlines()) for p in (ROOT / top).rglob("*.py")
        )
        for top in ("radapter", "radapter_cli")
    }
    record_property("meter", f"lines: {counts}, {sum(counts.values())} in all")
    assert all(counts.values())
