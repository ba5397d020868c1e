"""Help fits a terminal: examples are whole lines, one below the other."""

import re

import pytest

from radapter_cli.main import COMMANDS, GROUPS

ACTIONS = {f"{n} {a}": does for n, group in GROUPS.items() for a, does in group.items()}


def help_of(cli, monkeypatch, name, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
    outcome = cli(*name.split(), "--help")
    assert outcome.code == 0
    return outcome.out


def examples(text):
    """The lines of each block of examples in the source of a help."""
    return re.findall(r"^    radapter .*(?:\n    .*)*", text, re.MULTILINE)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["", *COMMANDS, *ACTIONS])
def test_examples_do_not_wrap_and_have_no_line_between(cli, monkeypatch, name, width):
    from radapter_cli.main import HELP

    function = (COMMANDS | ACTIONS).get(name)
    source = (function.__doc__ or "").replace("\n    ", "\n") if function else HELP
    printed = [line.strip() for line in help_of(cli, monkeypatch, name, width).splitlines()]
    blocks = examples(source)
    assert len(blocks) == (name not in ("demo", "info"))
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        place = printed.index(lines[0])
        assert printed[place : place + len(lines)] == lines


@pytest.mark.parametrize("width", [60, 80])
def test_every_command_is_listed_by_its_first_sentence(cli, monkeypatch, width):
    text = re.sub(r"[│\s]+", " ", help_of(cli, monkeypatch, "", width))
    for name, function in COMMANDS.items():
        first = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        assert f"{name} {first}" in text
