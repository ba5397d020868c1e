"""Every command and every recipe that the documentation shows is one that radapter takes."""

import re
from pathlib import Path

import pytest

from radapter import recipe as recipes
from radapter_cli.main import COMMANDS as NAMES

from .pages import (
    COMMANDS,
    GROUP,
    NEEDS,
    PAGES,
    ROOT,
    Block,
    blocks,
    check_line,
    check_yaml,
    inline_code,
)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """`--data-root` sets RADAPTER_DATA where it is parsed."""
    monkeypatch.setenv("RADAPTER_DATA", "")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def problems(lines, check=check_line):
    """(where, line, what is wrong with it) of each that is wrong."""
    found = []
    for where, line in lines:
        try:
            check(line)
        except Exception as error:
            said = getattr(error, "format_message", lambda error=error: str(error))()
            found.append((str(where), line, said or type(error).__name__))
    return found


def recipe_comments():
    for path in recipes.shipped().values():
        for line in path.read_text().splitlines():
            if re.match(r"#\s+radapter ", line):
                steps = [step.strip() for step in line.lstrip("# ").split("→")]
                yield from ((path.name, step) for step in steps if step.startswith("radapter "))


def help_examples():
    commands = [GROUP.commands[name] for name in NAMES]
    commands += [own for group in commands for own in getattr(group, "commands", {}).values()]
    for command in commands:
        for line in (command.help or "").splitlines():
            if line.strip().startswith("radapter "):
                yield f"{command.name} --help", line.strip()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_is_one(page):
    assert problems((block, line) for block in blocks(page) for line in block.commands()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_within_a_sentence_is_one(page):
    code = [text for text in inline_code(page) if re.match(r"(radapter|make|python) \S", text)]
    assert problems((page.name, text) for text in code) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_piece_of_a_recipe_fits_the_schema(page):
    found = [(block, block.text) for block in blocks(page) if block.language == "yaml"]
    assert problems(found, check_yaml) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_marks_and_blocks_are_of_the_known_kinds(page):
    for block in blocks(page):
        assert block.needs <= NEEDS, block
        shows_commands = any(line.startswith("radapter ") for line in block.text.splitlines())
        assert block.language in COMMANDS or not shows_commands or not block.language, block
    comments = re.findall(r"^<!-- *needs.*$", page.read_text(), flags=re.MULTILINE)
    assert len(comments) == len([block for block in blocks(page) if block.needs])


def test_examples_of_help_and_of_recipes_are_commands():
    lines = [*help_examples(), *recipe_comments()]
    assert len(lines) > 30
    assert problems(lines) == []


@pytest.mark.parametrize(
    "line",
    [
        "radapter trian emoji",
        "radapter train emojy",
        "radapter train emoji --dryrun",
        "radapter train emoji --devices many",
        "radapter train emoji optimisation.learning_rate=1",
        "radapter train my-data.yaml data.hold_out=2",
        "radapter train emoji --dry-run && radapter merge --alfa 1",
        "RADAPTER_DATA=x radapter merge --adapter newest | head",
        "radapter merge --alpha half",
        "radapter eval --suite emoji-shift",
        "radapter eval --suite retrieval --without flickr",
        "radapter eval --alphas 0:1",
        "radapter data look",
        "radapter recipes show nothing",
        "make everything",
        "python benchmarks/nothing.py",
        'pip install ".[everything]"',
        "radaptor train",
    ],
)
def test_a_wrong_command_is_seen(line):
    page = f"# Page\n\n<!-- needs: gpu -->\n```console\n{line}   # a comment\n```\n"
    (block,) = blocks(Path("page.md"), page)
    assert block.needs == {"gpu"}
    assert len(problems((block, text) for text in block.commands())) == 1


@pytest.mark.parametrize(
    "text",
    [
        "optimisation: {learning_rate: 1}",
        "name: x\nmodel: pictogram-clip\nmethod: {name: none}\ndata: {source: emoji}",
        "name: x\ntasks: [classification]\ndatasets: [{name: a, role: new, data: {source: emoji}}]",
        "identical_captions: both",
        "data: {source: table}",
        "nothing: 1",
    ],
)
def test_a_wrong_recipe_is_seen(text):
    assert len(problems([("page.md:1", text)], check_yaml)) == 1


def test_a_right_one_passes():
    text = """
# both
radapter train emoji \\
  seed=1   # again
RADAPTER_DATA=/data radapter data check retrieval > out.txt
"""
    lines = list(Block(Path("page.md"), 1, "console", set(), text).commands())
    assert len(lines) == 2
    assert problems(("page.md", line) for line in lines) == []
    parts = ["data: {hold_out: 0.2}", "identical_captions: one"]
    assert problems((("page.md", part) for part in parts), check_yaml) == []
