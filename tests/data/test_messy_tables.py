"""Tables as people have them: stray quotes, one picture written in two ways, lists of names."""

import pytest

from radapter.data import open_data
from radapter.data.names_file import may_begin_with_one, names_for
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput


def table(path, **values):
    return TableData(source="table", path=str(path), **{"task": "captions", **values})


def test_a_stray_quote_among_ids_without_an_ending(tmp_path):
    """As in Kaggle's tables: no cell looks like a file, so the ids of other rows tell."""
    captions = {2: '"a cat', 6: 'a dog"'}
    rows = [f"{i},{captions.get(i, f'text {i}')}" for i in range(1, 31)]
    (tmp_path / "t.csv").write_text("\n".join(["id,caption", *rows]))
    columns = {"image_column": "id", "text_column": "caption", "image_ending": ".jpg"}
    with pytest.raises(
        BrokenInput, match=r"t\.csv:3: a quote opens here and does not close before line 7"
    ):
        open_data(table(tmp_path / "t.csv", **columns))
    found = open_data(table(tmp_path / "t.csv", quoting="none", **columns))
    assert len(found) == 30
    assert found.captions[1] == ['"a cat']


def test_a_caption_of_several_lines_with_commas_is_one_caption(tmp_path):
    (tmp_path / "t.csv").write_text('id,caption\n1,one\n2,"a cat,\non a mat, 3\nred, small"\n')
    found = open_data(table(tmp_path / "t.csv", image_column="id", text_column="caption"))
    assert found.captions == [["one"], ["a cat,\non a mat, 3\nred, small"]]


def test_one_picture_written_in_several_ways(tmp_path):
    rows = ["a/1.png,one", "./a/1.png,two", "a//1.png,three", "a\\1.png,four", "b/1.png,five"]
    (tmp_path / "t.csv").write_text("\n".join(["filepath,title", *rows]))
    found = open_data(table(tmp_path / "t.csv"))
    assert found.keys == ["a/1.png", "b/1.png"]
    assert found.captions == [["one", "two", "three", "four"], ["five"]]


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (["0", "2"], 3, ["n0", "n2"]),
        (["1", "2", "3"], 3, ["n0", "n1", "n2"]),  # as many as the last one's number: from 1 on
        (["001", "003"], 3, ["n0", "n2"]),
        (["1", "2"], 3, ["n1", "n2"]),  # of which `init` asks
    ],
)
def test_a_list_of_names_begins_with_class_0_or_1(tmp_path, ids, names, expected):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(f"n{i}" for i in range(names)))
    assert names_for(ids, path) == expected
    assert may_begin_with_one(ids, path) is (expected == ["n1", "n2"])


def test_numbers_before_the_names_are_what_they_say(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("0 cat\n1 dog\n")
    with pytest.raises(BrokenInput, match="no name for class 2"):
        names_for(["1", "2"], path)
