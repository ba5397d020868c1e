"""What docs/models.md says of methods is what the code does."""

from pathlib import Path

from radapter.registry import METHODS, folds

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_methods_that_cannot_be_merged_are_named():
    (row,) = (r for r in PAGE.read_text("utf-8").splitlines() if r.startswith("| `radapter merge`"))
    assert [n for n in METHODS if f"`{n}`" in row] == [n for n in METHODS if not folds(n)]
