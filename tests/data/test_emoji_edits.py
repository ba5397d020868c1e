"""The built-in edits: made by the rules, in splits that share no concept, within a style."""

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from radapter.data import emoji, open_data
from radapter.data.emoji import edits as table
from radapter.data.sources.emoji_edits import EmojiEditsData
from radapter.errors import UsageError

FIVE = ("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "noto", "twemoji")


@pytest.fixture
def rules(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("emoji_edit_rules")


def opened(**settings):
    return open_data(EmojiEditsData(source="emoji-edits", **settings))


def test_the_rules_make_what_is_shipped(rules):
    names = [concept["name"] for concept in table.concepts()]
    assert len(set(names)) == len(names) > len(emoji.concepts())
    made = rules.edits({concept["name"]: concept["subgroup"] for concept in table.concepts()})
    shipped = [
        (row.kind, names[row.reference], names[row.target], row.text) for row in table.rows()
    ]
    assert sorted(map(tuple, made)) == shipped
    assert len({(row.reference, row.text) for row in table.rows()}) == len(shipped)


def test_a_few_edits_by_name(rules):
    names = ["red heart", "blue heart", "eleven-thirty", "twelve o’clock", "six o’clock", "person",
             "man: beard", "person: beard", "face with veil", "face", "firefighter",
             "man firefighter", "woman firefighter", "man artist"]  # fmt: skip
    subgroups = dict.fromkeys(names, "heart") | dict.fromkeys(names[-4:], "person role")
    found = {(row.reference, row.text): (row.kind, row.target) for row in rules.edits(subgroups)}
    assert found == {
        ("red heart", "make it blue"): ("colour", "blue heart"),
        ("blue heart", "make it red"): ("colour", "red heart"),
        ("eleven-thirty", "half an hour later"): ("clock", "twelve o’clock"),
        ("twelve o’clock", "six hours later"): ("clock", "six o’clock"),
        ("six o’clock", "six hours later"): ("clock", "twelve o’clock"),
        ("person", "with a beard"): ("hair", "person: beard"),
        ("man: beard", "make the gender neutral"): ("gender", "person: beard"),
        ("person: beard", "make it a man"): ("gender", "man: beard"),
        ("face", "with veil"): ("with", "face with veil"),
        ("firefighter", "make it a man"): ("gender", "man firefighter"),
        ("firefighter", "make it a woman"): ("gender", "woman firefighter"),
        ("man firefighter", "make it a woman"): ("gender", "woman firefighter"),
        ("man firefighter", "make the gender neutral"): ("gender", "firefighter"),
        ("woman firefighter", "make it a man"): ("gender", "man firefighter"),
        ("woman firefighter", "make the gender neutral"): ("gender", "firefighter"),
        ("man firefighter", "as an artist instead"): ("role", "man artist"),
        ("man artist", "as a firefighter instead"): ("role", "man firefighter"),
    }


@pytest.mark.parametrize("fold", [0, 3])
def test_no_concept_that_is_looked_for_is_trained_on(fold):
    parts = {split: opened(styles=["noto"], fold=fold, split=split)
             for split in ("train", "validation", "test")}  # fmt: skip
    targets = {split: {part.groups[e.targets[0]] for e in part.edits}
               for split, part in parts.items()}  # fmt: skip
    train = parts["train"]
    trained = targets["train"] | {train.groups[edit.reference] for edit in train.edits}
    assert not trained & (targets["validation"] | targets["test"])
    assert not targets["validation"] & targets["test"]
    assert all(len(part.edits) > 100 for part in parts.values())
    # What differs in gender or hair alone is on one side, of the further concepts.
    by_base = {}
    for concept in table.concepts()[len(emoji.concepts()) :]:
        base = concept["name"].removeprefix("man ").removeprefix("woman ")
        by_base.setdefault(base, set()).add(concept["fold"])
    assert Counter(map(len, by_base.values())).keys() == {1}


def test_an_edit_stays_within_its_style_and_has_variants():
    both = opened(styles=["noto", "emojione"], split="all")
    keys = [key.split("/")[0] for key in both.keys]
    assert Counter(keys) == {"noto": len(table.concepts()), "emojione": len(emoji.concepts())}
    for edit in both.edits[::50]:
        (style,) = {keys[i] for i in (edit.reference, *edit.targets, *edit.gallery, *edit.subset)}
        assert len(edit.gallery) == Counter(keys)[style]
        assert len(edit.subset) > 1
    assert {style: table.number_of(style) for style in emoji.styles()} == {
        style: len(table.concepts() if style in FIVE else emoji.concepts())
        for style in emoji.styles()
    }
    picture = both.read(len(emoji.concepts()))  # the first of the further ones
    assert (picture.mode, picture.size) == ("RGB", (64, 64))


def test_kinds_are_chosen_by_name():
    clocks = opened(kinds=["clock"], split="all")
    assert len(clocks.edits) == 96
    assert {edit.texts for edit in clocks.edits} == {
        ("half an hour later",), ("one hour later",), ("one hour earlier",), ("six hours later",)
    }  # fmt: skip
    with pytest.raises(
        UsageError, match=r"^Unknown kind of edits 'clocks'. Did you mean 'clock'\?"
    ):
        opened(kinds=["clocks"])
    with pytest.raises(UsageError, match="^Unknown emoji style 'notto'"):
        opened(styles=["notto"])


def test_the_manual_has_the_counts():
    manual = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    known = len(emoji.concepts())
    for kind in table.kinds():
        own = [row for row in table.rows() if row.kind == kind]
        inside = sum(max(row.reference, row.target) < known for row in own)
        assert re.search(rf"^\| {kind} \| .+ \| {len(own):,} \| {inside} \|$", manual, re.MULTILINE)
    assert f"{len(table.concepts()):,} of noto, twemoji" in manual
    assert [len(table.alike(s)) for s in ("fluent-emoji-high-contrast", "noto")] == [18, 3]
