import hashlib
import importlib
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from radapter.data import icons, open_data
from radapter.data.pairs import Pairs
from radapter.data.scored import among
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.icons import IconsData

KINDS = ["line", "solid", "two-tone", "colour", "pixel"]
PERMISSIVE = {"MIT", "Apache-2.0", "ISC", "CC0-1.0", "BSD-3-Clause", "Unlicense"}


def opened(**values):
    return open_data(IconsData(source="icons", **values))


def test_the_pictures_are_those_that_the_table_describes():
    content = (icons.HERE / "pictures.zip").read_bytes()
    assert hashlib.sha256(content).hexdigest() == icons.table()["sha256"]
    assert len(icons._index()) == len(icons.pictures())
    for number, member in enumerate(icons._index()):
        assert member.name == icons.file_name(number)
    assert len({icon.name for icon in icons.pictures()}) == len(icons.pictures())
    assert {icon.kind for icon in icons.pictures()} == set(KINDS)


def test_every_picture_is_of_a_set_that_is_listed_with_its_licence():
    sets = icons.table()["sets"]
    notice = (icons.HERE / "NOTICE.md").read_text(encoding="utf-8")
    licences = (icons.HERE / "LICENSES.txt").read_text(encoding="utf-8")
    counts = Counter(icon.name.split(":")[0] for icon in icons.pictures())
    assert set(counts) == set(sets)
    for name, facts in sets.items():
        (line,) = (row for row in notice.splitlines() if row.startswith(f"- `{name}`: "))
        assert f"{counts[name]} icons; licence: {facts['licence']}" in line
        assert facts["licence"] in PERMISSIVE
        assert any(
            row.endswith(")") and name in row.rsplit("(", 1)[1][:-1].split(", ")
            for row in licences.splitlines()
        ), name
    for text in ("Permission is hereby granted", "Apache License", "Redistribution and use"):
        assert text in licences


def test_no_designer_is_in_two_splits():
    splits = defaultdict(set)
    for facts in icons.table()["sets"].values():
        splits[facts["family"]].add(facts["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_every_class_has_pictures_to_train_and_test_on():
    labels = {
        (kind, split): Counter(opened(kinds=[kind], split=split).labels)
        for kind, split in (("line", "train"), ("line", "test"), ("solid", "test"))
    }
    classes = [c for c in icons.classes() if c["half"] != "unseen"]
    assert len(classes) > 250
    for found, least in zip(labels.values(), (2, 3, 2), strict=True):
        assert min(found[place] for place in range(len(classes))) >= least
    assert max(labels["line", "test"].values()) <= 22
    assert len({facts["name"] for facts in icons.classes()}) == len(icons.classes())


def test_the_halves_share_no_class_and_make_up_the_whole():
    names = {c: opened(classes=c).class_names for c in ("all", "base", "novel", "unseen")}
    assert sorted(names["base"] + names["novel"]) == sorted(names["all"])
    assert abs(len(names["base"]) - len(names["novel"])) <= 1
    assert not set(names["unseen"]) & set(names["all"])
    for half in ("base", "novel", "unseen"):
        dataset = opened(classes=half)
        missing = set(range(len(names[half]))) - set(dataset.labels)
        assert not missing or half == "unseen"
        assert all(
            texts == [dataset.class_names[label]]
            for texts, label in zip(dataset.captions, dataset.labels, strict=True)
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_smaller_draws_are_parts_of_the_larger(seed):
    whole = opened()
    have = Counter(whole.labels)
    before: set[str] = set()
    for shots in (1, 2, 4, 8, 16):
        drawn = opened(shots=shots, shots_seed=seed)
        assert before < set(drawn.keys) < set(whole.keys)
        assert Counter(drawn.labels) == {k: min(shots, n) for k, n in have.items()}
        before = set(drawn.keys)
    assert opened(shots=4, shots_seed=seed).keys != opened(shots=4, shots_seed=seed + 3).keys
    assert max(Counter(opened(shots=4, split="test").labels).values()) == 4


def test_a_picture_is_drawn_from_the_seed_and_its_name_alone():
    dataset, other = opened(split="test"), opened(split="test", classes="novel")
    place = dataset.keys.index(other.keys[5])
    assert dataset.read(place).tobytes() == other.read(5).tobytes()
    assert opened(split="test", drawing_seed=1).read(0).tobytes() != dataset.read(0).tobytes()
    plain = np.asarray(opened(split="test", drawing="plain").read(place).convert("L"))
    assert (plain[0, 0], plain.min()) == (255, plain.min())
    assert plain.min() < 60


def test_training_pictures_are_drawn_anew_in_each_epoch_if_asked():
    settings = IconsData(source="icons", drawing="anew")
    pairs = Pairs(open_data(settings), settings, transform=np.asarray, seed=0)
    first, second, again = (pairs[epoch, 3]["image"] for epoch in (0, 1, 0))
    assert (first == again).all()
    assert (first != second).any()
    fixed = settings.model_copy(update={"split": "validation"})
    dataset = open_data(fixed)
    torch.manual_seed(0)
    picture = dataset.read(0).tobytes()
    assert dataset.read(0).tobytes() == picture
    assert dataset.protocol["drawing"] == "fixed, seed 0"


@pytest.mark.parametrize("kind", KINDS)
def test_the_ground_can_be_told_from_the_icon(kind):
    dataset = opened(kinds=[kind], split="test")
    for i in range(0, len(dataset), max(1, len(dataset) // 30)):
        picture = np.asarray(dataset.read(i).convert("L"), dtype=float)
        assert picture.shape == (64, 64)
        assert np.ptp(picture) > 60, dataset.keys[i]


def test_size_and_place_are_drawn():
    number = next(i.number for i in icons.pictures() if i.kind == "solid")
    corners = set()
    for seed in range(20):
        picture = np.asarray(icons.drawn(number, random.Random(seed)).convert("L"), dtype=float)
        rows, columns = np.nonzero(abs(picture - picture[0, 0]) > 40)
        corners.add((rows.min(), columns.min(), rows.max() - rows.min()))
    assert len(corners) > 10


def test_groups_are_those_of_no_emoji():
    emoji = open_data(EmojiData(source="emoji", split="all"))
    assert not set(emoji.groups) & set(opened().groups)


def test_what_of_a_suite_a_model_is_scored_on():
    trained = {c: IconsData(source="icons", classes=c) for c in ("all", "base")}
    line = IconsData(source="icons", split="test")
    novel = IconsData(source="icons", split="test", classes="novel")
    assert line.for_model_trained_on(trained["base"]).classes == "base"
    assert line.for_model_trained_on(trained["all"]).classes == "all"
    assert novel.for_model_trained_on(trained["base"]) == novel
    assert novel.for_model_trained_on(trained["all"]) is None
    assert novel.for_model_trained_on(EmojiData(source="emoji")) == novel


def test_further_names_are_captions_if_asked():
    dataset = opened(captions=["name", "others", "icon"])
    place = dataset.class_names.index("house")
    texts = dataset.captions[dataset.labels.index(place)]
    assert texts[0] == "house"
    assert "home" in texts[1].split(", ")
    assert len(texts) == 3


def test_what_is_drawn_anew_says_so():
    """Features of it are not the same in all epochs, so training must not keep them."""
    assert opened(drawing="anew").varies
    assert not opened(drawing="anew", split="test").varies
    assert not opened(drawing="fixed").varies


def test_no_near_copies_by_different_designers():
    """Correlation in small, as the build measures it, above 0.95: within each class, whatever the
    kind, so in no two splits either."""
    rows, of_class = [], defaultdict(list)
    for icon in icons.pictures():
        drawing = icons.drawing(icon.number)
        grey = drawing.coverage.astype(np.float32)
        if drawing.colours is not None:
            grey = grey * (1 - drawing.colours.astype(np.float32).mean(-1) / 255 * 0.85)
        small = grey.reshape(32, 2, 32, 2).mean((1, 3)).ravel()
        small -= small.mean()
        rows.append(small / (np.linalg.norm(small) + 1e-6))
        of_class[icon.label].append(icon)
    found = []
    for own in of_class.values():
        near = np.argwhere(np.triu(np.corrcoef([rows[icon.number] for icon in own]), 1) > 0.951)
        pairs = ((own[i], own[j]) for i, j in near)
        found += [(a.name, b.name) for a, b in pairs if icons.designer(a) != icons.designer(b)]
    assert not found


def test_what_raw_pixels_have_right_is_known_of_whole_test_sets_alone(monkeypatch):
    label = "nearest training icon by raw pixels"
    whole = opened(kinds=["solid"], split="test")
    assert 1 / len(whole.class_names) < whole.trivial[label] < 0.2
    half = opened(kinds=["solid"], split="test", classes="novel")
    assert half.trivial[label] != whole.trivial[label]
    for other in (
        opened(kinds=["solid"], split="train"),
        opened(kinds=["solid"], split="test", shots=2),
        opened(kinds=["solid"], split="test", drawing="plain"),
        opened(kinds=["solid", "line"], split="test"),
        whole.select([0, 1]),
        among(whole, half.class_names),
    ):
        assert other.trivial == {}
    # As measured: see the benchmark, of which this is one set.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    power = importlib.import_module("icon_power")
    monkeypatch.setattr(power, "SETS", ("base",))
    monkeypatch.setattr(power, "KINDS", ("pixel", "colour"))
    names = "pixel, base", "colour, base"
    assert power.raw_pixels() == {name: icons.raw_pixels()[name] for name in names}
