"""What the list of the built-in model's pre-training drawings keeps out of it.

A line of `benchmarks/icon_pretraining.txt.xz` is a drawing: family, kind, icon, name, keywords.
"""

import importlib
import lzma
from pathlib import Path

import pytest

from radapter import recipe as recipes
from radapter.data import emoji, icons
from radapter.data.sources.emoji import EmojiData
from radapter.evaluation.suite import load_suite

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STYLES = {"twemoji", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "noto-v1"}


@pytest.fixture(scope="module")
def drawings():
    packed = (BENCHMARKS / "icon_pretraining.txt.xz").read_bytes()
    return [line.split("\t") for line in lzma.decompress(packed).decode().splitlines()]


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("icon_unseen"), importlib.import_module("icon_sets")


def test_no_designer_of_the_built_in_icons(drawings, scripts):
    _, sets = scripts
    trained = {family for family, *_ in drawings}
    laboratory = {facts["family"] for facts in icons.table()["sets"].values()}
    assert laboratory <= {f for split in sets.LABORATORY.values() for f in split}
    assert len(trained) == 30
    assert not trained & {f for split in sets.LABORATORY.values() for f in split}
    of_icons = {icon.partition(":")[0] for _, kind, icon, *_ in drawings if kind != "emoji"}
    assert not of_icons & set(icons.table()["sets"])
    assert {sets.family(name) for name in of_icons} == trained - STYLES


def test_no_emoji_that_the_suites_call_unseen(drawings):
    trained = {icon.partition("/")[0] for _, kind, icon, *_ in drawings if kind == "emoji"}
    assert trained == STYLES
    named = {s for _, _, icon, *_ in drawings for s in (icon.partition(":")[0],)}
    assert not named & {"noto", "emojione", "emojione-monotone"}
    suite = load_suite("emoji-shifts")
    roles = {d.role: set() for d in suite.datasets}
    for described in suite.datasets:
        assert isinstance(described.data, EmojiData)
        roles[described.role] |= set(described.data.styles)
    assert roles["seen"] == STYLES
    assert set(emoji.styles()) - STYLES == roles["in-distribution"] | roles["unseen"]


def test_no_unseen_concept_by_name_or_keyword(drawings, scripts):
    unseen, _ = scripts
    named = {facts["name"] for facts in icons.classes() if facts["half"] == "unseen"}
    assert named == set(unseen.UNSEEN)
    found = [(d, c) for d in drawings if (c := unseen.shows_unseen([d[3], *d[4].split(", ")]))]
    assert not found
    # The other classes are there, most of them by the very name.
    words = {name for _, _, _, name, _ in drawings}
    known = [facts["name"] for facts in icons.classes() if facts["half"] != "unseen"]
    assert sum(name in words for name in known) > 0.6 * len(known)


def test_names_are_captions_and_no_class_head_is_taught():
    """The prompts of the suites are bare names, which stand in captions."""
    for name in ("emoji-shifts", "icons-shifts"):
        assert load_suite(name).templates == ["{}"]
    recipe = recipes.load(BENCHMARKS.parent / "recipes" / "pretrain" / "pictogram-clip.yaml")
    assert recipe.head is None
    assert recipe.data.task == "captions"
    assert [term for term, _ in recipe.terms()] == ["mpm-nce"]
