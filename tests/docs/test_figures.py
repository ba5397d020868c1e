"""Tables in the pages say what the committed results say."""

import re

import pytest

from .pages import PAGES, ROOT

MARK = re.compile(r"<!-- figures: (\S+) -->\n((?:\|.*\n)+)")
TABLES = [
    pytest.param(name, table, id=f"{page.name}-{name}")
    for page in PAGES
    for name, table in MARK.findall(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_a_table_is_of_the_results(name, table):
    """All figures of a row are those of one method."""
    of_methods = {}
    for label, *cells in map(
        cells_of, (ROOT / "results" / name / "table.md").read_text().split("\n")
    ):
        of_methods.setdefault(label, set()).update(cells)
    for line in table.splitlines()[2:]:
        _, *cells = cells_of(line)
        assert any(set(cells) <= made for made in of_methods.values()), line


def cells_of(line):
    return [cell.strip() for cell in line.split("|")[1:-1]] or [""]


def test_the_readme_shows_a_study():
    assert "<!-- figures: icons -->" in (ROOT / "README.md").read_text(encoding="utf-8")
