"""Triplets in lines of JSON, and those that rules make of captions."""

import json

import pytest
import trees

from radapter.data import open_data
from radapter.data.settings import MissingData
from radapter.data.sources.triplets import TripletsData
from radapter.data.swaps import WORDS, swaps_of
from radapter.errors import BrokenInput


def opened(root, **settings):
    tree = {"source": "triplets", "data_root": str(root), "path": "triplets.jsonl"}
    return open_data(TripletsData.model_validate(tree | {"root": "pictures"} | settings))


def test_rows_are_edits_of_their_pictures(tmp_path):
    trees.triplets(tmp_path)
    dataset = opened(tmp_path)
    assert dataset.keys == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    rows = [(edit.reference, *edit.texts, edit.told) for edit in dataset.edits]
    assert rows[:3] == [
        (0, "make it red", "a red thing"),
        (0, "make it blue", "a blue thing"),
        (1, "make it green", "a green thing"),
    ]
    made = [row for row in rows if row[0] == 2]
    assert [edit.rpartition(" ")[0] for _, edit, _ in made][1] == "make it"
    assert dataset.left_out == {"without edit": ["line 11"]}
    assert [e.told for e in opened(tmp_path, split="all").edits] == [e.told for e in dataset.edits]
    some = opened(tmp_path, hold_out=0.5)
    rest = opened(tmp_path, hold_out=0.5, split="validation")
    assert len(some.edits) + len(rest.edits) == len(dataset.edits)


def test_a_rule_changes_one_word_to_another_of_its_kind():
    found = swaps_of("Two red apples and a small dog, in a gray bus")
    assert len(found) == 6
    before = ["Two", "red", "apples", "and", "a", "small", "dog,", "in", "a", "gray", "bus"]
    for edit, told in found:
        changed = [
            (a.strip(","), b.strip(","))
            for a, b in zip(before, told.split(" "), strict=True)
            if a != b
        ]
        ((old, new),) = changed
        assert new in edit.split()
        template, words = WORDS[new]
        assert edit == template.format(new)
        assert {"gray": "grey"}.get(old, old.lower()) in words
        assert new not in ["two", "red", "small", "dog", "grey", "bus"]
    assert swaps_of("Two red apples and a small dog, in a gray bus") == found
    assert swaps_of("an abstract thing") == swaps_of("") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "triplets.jsonl:2: no valid JSON"),
        ("[1]", "triplets.jsonl:2: a row needs image, edit and target, or image and caption"),
        ('{"image": "0.jpg", "edit": "x"}', "triplets.jsonl:2: a row needs image, edit and target"),
        ('{"image": "0.jpg", "caption": 3}', "triplets.jsonl:2: caption has to be a text"),
        ('{"image": "", "caption": "a"}', "triplets.jsonl:2: image has to be a text"),
        ('{"image": "9.jpg", "edit": "x", "target": "y"}', "9.jpg"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    trees.triplets(tmp_path)
    first = json.dumps({"image": "0.jpg", "edit": "make it red", "target": "a red thing"})
    (tmp_path / "triplets.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(BrokenInput, match=message):
        opened(tmp_path)


def test_a_file_without_rows_or_none_at_all(tmp_path):
    trees.triplets(tmp_path)
    with pytest.raises(MissingData, match=r"No such file: .*none.jsonl. Correct data.path"):
        opened(tmp_path, path="none.jsonl")
    for text, message in (("\n", "has no rows"), (
        '{"image": "0.jpg", "caption": "a thing"}', "no captions with anything to change by rule"
    )):  # fmt: skip
        (tmp_path / "triplets.jsonl").write_text(text)
        with pytest.raises(BrokenInput, match=message):
            opened(tmp_path)
