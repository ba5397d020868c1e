"""Every error says what is wrong, where, and what to type or change (CONTRIBUTING.md, Rules)."""

import ast
import re
from pathlib import Path

import typer

import radapter
from radapter_cli.main import app

ROOT = Path(radapter.__file__).parent
SOURCES = sorted([*ROOT.rglob("*.py"), *ROOT.with_name("radapter_cli").glob("*.py")])
BEGINS = re.compile(
    r"[^a-z]|[\w-]*[._:]|"
    r"(override|onnx|onnxruntime|torchrun|transformers'|datasets|uniadapter|multiway|mv-adapter|"
    r"stan) "
)
"""A sentence; or a key, a place or a package's name"""
ENDS = re.compile(r"[.})?]$|: (radapter|pip) [^.]*$|--[\w-]+( \S+)?$")
"""A full stop, what is filled in, or a command"""
LINE = re.compile(r"override |\{\}: |\{\}:1:1: ")
"""An error of a recipe, of which each has a line"""
RIDDLES = re.compile(r"(?<!here )\b(is|are) (no|none|nothing)\b|\b(mend|anew)\b|\bof ours\b")

COMMAND = re.compile(r"`radapter ([^`]+)`|(?:[Tt]ype|first|again): radapter ([^`.(,]+)")
OF_ALL = ("--debug", "--version", "--help")


def _errors(trees):
    """The names of RadapterError and of all classes derived from it."""
    found, before = {"RadapterError"}, 0
    while before < len(found):
        before = len(found)
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.ClassDef) and found & {
                ast.unparse(base) for base in node.bases
            }:
                found.add(node.name)
    return found


def _parts(node):
    """Pieces of a message: texts, and expressions that fill it in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in _parts(value)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _parts(node.left) + _parts(node.right)
    return [node]


def _messages():
    """(where, the message with {} for what is filled in, the expressions) of every error."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    errors = _errors(trees.values())
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in errors and node.args:
                parts = _parts(node.args[0])
                text = "".join(part if isinstance(part, str) else "{}" for part in parts)
                filled = [ast.unparse(part) for part in parts if not isinstance(part, str)]
                yield f"{path.relative_to(ROOT.parent)}:{node.lineno}", text, " ".join(filled)


def _faults(text, filled):
    if not BEGINS.match(text):
        yield "begins with a small letter"
    if not ENDS.search(text) and not LINE.match(text):
        yield "ends without a full stop or command"
    if found := RIDDLES.search(text):
        yield f"'{found[0]}'"
    if re.search(r"\b[Uu]nknown [\w -]+ '\{\}'", text) and not re.search(
        "nearest|[Kk]nown:", text + filled
    ):
        yield "does not name what is known"


def test_errors_follow_one_pattern():
    found = list(_messages())
    assert len(found) > 400
    wrong = [
        f"{where}: {fault}: {text}" for where, text, of in found for fault in _faults(text, of)
    ]
    assert not wrong, "\n".join(wrong)


def _advice():
    """(where, the words after `radapter`) of every command that a string names."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr)):
                text = "".join(part if isinstance(part, str) else "{}" for part in _parts(node))
                for found in COMMAND.finditer(text):
                    where = f"{path.relative_to(ROOT.parent)}:{node.lineno}"
                    yield where, (found[1] or found[2]).split()


def test_commands_in_strings_are_commands():
    commands = typer.main.get_command(app).commands
    found = [words for words in _advice() if words[1][0] not in (*OF_ALL, "ARGUMENTS")]
    assert len(found) > 40
    wrong = []
    for where, (name, *words) in found:
        command = commands.get(name)
        if words and words[0] in getattr(command, "commands", ()):  # an action of it
            command = command.commands[words[0]]
        options = [*OF_ALL] + [o for each in getattr(command, "params", ()) for o in each.opts]
        unknown = [word for word in words if word.startswith("--") and word not in options]
        if name not in commands or unknown:
            wrong.append(f"{where}: radapter {name} {' '.join(unknown)}")
    assert not wrong, "\n".join(wrong)
