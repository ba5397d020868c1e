"""A table as data: what a terminal shows, Markdown and CSV say the same."""

from tiny import printed

from radapter.reporting.table import GROUP, Column, Styled, Table


def made():
    table = Table([Column("", left=True), Column("a|b")], title="numbers")
    table.add("accuracy", style=GROUP)
    table.add("  own", Styled("1.0*", "bold"))
    table.note("[b] is no markup")
    return table


def test_on_a_terminal_with_title_and_notes():
    lines = [line.rstrip() for line in printed([made()])]
    assert lines == ["numbers", "           a|b", "accuracy", "  own     1.0*", "[b] is no markup"]
    assert printed([Table([Column("a")], title="none")]) == ["none"]


def test_markdown_has_groups_in_bold_and_takes_text_as_it_is():
    assert made().to_markdown().splitlines() == [
        "|  | a\\|b |",
        "| --- | ---: |",
        "| **accuracy** |  |",
        "| own | 1.0\\* |",
    ]


def test_csv_has_cells_as_they_are():
    assert made().to_csv() == ",a|b\naccuracy\n  own,1.0*\n"
