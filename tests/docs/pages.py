"""The documentation taken apart: its blocks, and the commands and recipes in them, checked."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt

from radapter import recipe as recipes
from radapter import recipe_yaml
from radapter.recipe import Recipe
from radapter.study.schema import Study, shipped_studies
from radapter_cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {"gpu", "download", "installation", "own data"}
COMMANDS = ("console", "bash")
OWN = ROOT / "recipes" / "own-data.yaml"
OTHER_PROGRAMS = {"cd", "mkdir", "pip", "git", "tensorboard", "torchrun", "docker", "export", "npm"}
GROUP: Any = typer.main.get_command(app)


@dataclass
class Block:
    """A fenced or indented block of a page."""

    page: Path
    line: int
    language: str
    needs: set[str]
    text: str

    def __str__(self) -> str:
        return (
            f"{self.page.relative_to(ROOT) if self.page.is_absolute() else self.page}:{self.line}"
        )

    def commands(self) -> Iterator[str]:
        """Its lines that are commands, those that end in a backslash with the next ones."""
        begins = ("radapter ", "python ", "make ", "pip ", "torchrun ")
        for line in self.text.replace("\\\n", " ").splitlines():
            line = line.strip()
            marked = self.language in COMMANDS and line and not line.startswith("#")
            if marked or (not self.language and line.startswith(begins)):
                yield line


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """The blocks of a page, each with what the comment above it says that it needs."""
    tokens = _parse(page.read_text(encoding="utf-8") if text is None else text)
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type not in ("fence", "code_block"):
            continue
        comment = before.content if before is not None and before.type == "html_block" else ""
        marked = re.fullmatch(r"<!-- needs: ([a-z, ]+) -->", comment.strip())
        needs = set(marked[1].split(", ")) if marked else set()
        line = token.map[0] + 1 if token.map else 0
        found.append(Block(page, line, token.info.strip(), needs, token.content))
    return found


def inline_code(page: Path, text: str | None = None) -> list[str]:
    """What stands between backticks in the sentences and tables of a page."""
    tokens = _parse(page.read_text(encoding="utf-8") if text is None else text)
    children = [child for token in tokens for child in token.children or ()]
    return [child.content for child in children if child.type == "code_inline"]


def _parse(text: str) -> list[Any]:
    return MarkdownIt("commonmark").enable("table").parse(text)


# ---------------------------------------------------------------- commands


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell's line: without comments, pipes and redirections."""
    shell = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    shell.whitespace_split = True
    words: list[str] = []
    to_file = False
    for word in shell:
        if set(word) <= set("|&;"):
            yield words
            words = []
        elif set(word) <= set("<>"):
            to_file = True
        elif to_file:
            to_file = False
        elif words or not re.fullmatch(r"[A-Z_]+=.*", word):  # NAME=VALUE before a command
            words.append(word)
    if words:
        yield words


def check_line(line: str) -> None:
    """Parse every command of a line for real.

    Raises:
        Exception: of the command line, of the recipe, or that a file or target is missing.
    """
    for words in simple_commands(line):
        program = words[0].removeprefix(".venv/bin/")
        if program == "radapter":
            check_radapter(words[1:])
        elif program in ("python", "python3", "pytest"):
            _check_python([w for w in words if w.endswith(".py")], words)
        elif program == "make":
            _check_make(words[1:])
        else:
            assert program in OTHER_PROGRAMS or (ROOT / program).is_file(), f"unknown: {program}"
        if program == "pip":
            _check_extras(words)
        if "-m" in words and program == "torchrun":
            module = words.index("-m") + 1
            assert words[module] in ("radapter", "radapter_cli"), words[module]
            check_radapter(words[module + 1 :])


def check_radapter(words: list[str]) -> None:
    """Parse the words after `radapter` as the command itself does, and look at their values."""
    words = [word for word in words if word not in ("...", "…")]
    try:
        root = GROUP.make_context("radapter", list(words))
        left = [*root._protected_args, *root.args]
        if not left:  # such as `radapter --debug`, which the reader adds to
            return
        name, command, rest = GROUP.resolve_command(root, left)
        parsed = command.make_context(name, rest, parent=root)
        if hasattr(command, "commands"):
            left = [*parsed._protected_args, *parsed.args]
            action, command, rest = command.resolve_command(parsed, left)
            name, parsed = f"{name} {action}", command.make_context(action, rest, parent=parsed)
    except typer.Exit:  # of --help and --version
        return
    CHECKS.get(name, lambda **_: None)(**parsed.params)


def _check_python(files: list[str], words: list[str]) -> None:
    assert files or "-m" in words or "-c" in words or words[0].endswith("pytest"), words
    assert [file for file in files if not (ROOT / file).is_file()] == []


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [word for word in words if "=" not in word and word not in targets] == []


def _check_extras(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


# ---------------------------------------------------------------- values of a command


def _check_train(recipe: str | None, overrides: list[str] | None, resume: bool, **_: Any) -> None:
    if recipe and not resume:
        fixed = [item for item in overrides or [] if "$" not in item]  # a variable of the shell
        recipes.load(_recipe_file(recipe), fixed)


def _recipe_file(name: str) -> Path:
    """A shipped recipe; recipes/own-data.yaml for the reader's own, such as my-data.yaml."""
    own = name.endswith(".yaml") and not (ROOT / name).is_file()
    return (
        OWN
        if own or name == "RECIPE"
        else recipes.locate(str(ROOT / name) if "/" in name else name)
    )


def _check_eval(**given: Any) -> None:
    from radapter.evaluation.adapting import changed
    from radapter.evaluation.parity import tolerance_of
    from radapter_cli.eval import parse_alphas

    suites = [_suite(name) for name in given["suite"] or () if not name.endswith(".yaml")]
    if suites:
        changed(suites, given["protocol"] or (), given["without"] or ())
    for text in given["tolerance"] or ():
        tolerance_of("int8", [text])
    if given["alphas"]:
        parse_alphas(given["alphas"])


def _suite(name: str) -> Any:
    from radapter.evaluation.suite import load_suite

    return load_suite(name)


def _check_merge(alpha: str | None, **_: Any) -> None:
    if alpha not in (None, "auto", "auto-per-tower", "A"):
        for number in re.sub("^image=|text=", "", alpha).split(","):
            assert 0 <= float(number) <= 2


def _check_recipes(action: str, name: str | None, **_: Any) -> None:
    _check_action("recipes", action)
    known = ("recipe", "suite", "study") if action == "schema" else ("NAME", *recipes.shipped())
    assert name is None or name in known, name


def _check_data(suite: str | None, **_: Any) -> None:
    if suite not in (None, "SUITE") and not str(suite).endswith(".yaml"):
        _suite(str(suite))


def _check_study(study: str | None, **_: Any) -> None:
    assert study is None or study.endswith(".yaml") or study in shipped_studies(), study


def _check_action(command: str, action: str) -> None:
    """An action is text to typer; the help of the argument lists those that there are."""
    help_text = next(p.help for p in GROUP.commands[command].params if p.name == "action")
    assert action in re.findall(r"\w+", help_text), action


CHECKS = {
    "train": _check_train,
    "eval": _check_eval,
    "merge": _check_merge,
    "recipes": _check_recipes,
    "data list": _check_data,
    "data check": _check_data,
    "study": _check_study,
}

# ---------------------------------------------------------------- recipes and suites


def check_yaml(text: str) -> None:
    """Validate a recipe, a part of one (as a change of recipes/own-data.yaml), a suite or a study.

    Raises:
        UsageError: it is against the schema.
    """
    from radapter.evaluation.suite import FOLDER, Suite

    tree = recipe_yaml.read_text(text, "the block")
    if "methods" in tree:
        recipes.validate(Study, tree, "the block")
    elif {"name", "model", "method"} <= set(tree):
        recipes.parse(text, "the block")
    elif set(tree) <= set(Recipe.model_fields):
        recipes.validate(Recipe, _merged(recipe_yaml.read_file(OWN), tree), "the block")
    elif "datasets" in tree:
        recipes.validate(Suite, tree, "the block")
    else:
        base = recipe_yaml.read_file(FOLDER / "emoji-shifts.yaml")
        recipes.validate(Suite, _merged(base, tree), "the block")


def _merged(base: Any, change: Any) -> Any:
    """A tree with a part of another; a section of another source, method or objective is new."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    if any(base.get(key) != change[key] for key in ("source", "name") if key in change):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}
