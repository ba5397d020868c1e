from collections import Counter

import pytest

from radapter.data import emoji, open_data
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.icons import IconsData
from radapter.errors import UsageError

STYLES = [
    "emojione", "emojione-monotone", "fluent-emoji", "fluent-emoji-flat",
    "fluent-emoji-high-contrast", "noto", "noto-v1", "twemoji",
]  # fmt: skip


def settings(**values):
    return EmojiData(source="emoji", **{"task": "captions", **values})


def hexcodes(dataset):
    return [key.split("/")[1] for key in dataset.keys]


def test_the_eight_styles_hold_the_same_concepts():
    assert emoji.styles() == STYLES
    expected = {concept["hexcode"] for concept in emoji.concepts()}
    assert len(expected) == len(emoji.concepts()) > 1000
    for style in STYLES:
        assert set(emoji._index(style)) == expected, style
        assert all(set(members) == {".webp"} for members in emoji._index(style).values())


@pytest.mark.parametrize("style", STYLES)
def test_pictures_of_a_style(style):
    dataset = open_data(settings(styles=[style], split="all"))
    for i in range(0, len(dataset), 150):
        picture = dataset.read(i)
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
        assert len(picture.getcolors(64 * 64)) > 1, dataset.keys[i]


@pytest.mark.parametrize("fold", range(5))
@pytest.mark.parametrize("task", ["captions", "classification"])
def test_splits_are_disjoint_and_cover_everything_alike_in_every_style(fold, task):
    found = {}
    for style in STYLES:
        for split in ("train", "validation", "test", "all"):
            dataset = open_data(settings(styles=[style], split=split, fold=fold, task=task))
            found.setdefault(split, hexcodes(dataset))
            assert hexcodes(dataset) == found[split], (style, split)
            assert len(set(dataset.groups)) == len(dataset)
    parts = [found[split] for split in ("train", "validation", "test")]
    assert sorted(code for part in parts for code in part) == sorted(found["all"])
    assert len(set(found["all"])) == len(found["all"])
    assert len(parts[0]) == pytest.approx(0.6 * len(found["all"]), rel=0.05)
    assert len(parts[2]) == pytest.approx(0.2 * len(found["all"]), rel=0.05)


def test_a_model_trained_on_emoji_is_scored_on_concepts_kept_for_testing():
    trained, whole = settings(fold=3), settings(styles=["emojione"], split="all")
    own = whole.for_model_trained_on(trained)
    assert (own.styles, own.split, own.fold) == (["emojione"], "test", 3)
    assert settings(split="train").for_model_trained_on(trained).split == "train"
    assert whole.for_model_trained_on(IconsData(source="icons")) == whole


def test_every_concept_is_tested_and_validated_on_once_over_the_folds():
    for split in ("test", "validation"):
        counts = Counter()
        for fold in range(5):
            counts.update(hexcodes(open_data(settings(split=split, fold=fold))))
        assert set(counts) == {concept["hexcode"] for concept in emoji.concepts()}
        assert set(counts.values()) == {1}


def test_classes_are_the_subgroups_with_enough_concepts():
    sizes = Counter(concept["subgroup"] for concept in emoji.concepts())
    expected = sorted(name for name, size in sizes.items() if size >= 5)
    dataset = open_data(settings(task="classification", split="all", styles=["noto", "twemoji"]))
    assert dataset.class_names == expected
    assert set(dataset.labels) == set(range(len(expected)))
    subgroup = {concept["hexcode"]: concept["subgroup"] for concept in emoji.concepts()}
    for key, label in zip(hexcodes(dataset), dataset.labels, strict=True):
        assert subgroup[key] == expected[label]
    assert len(dataset) == 2 * sum(size for size in sizes.values() if size >= 5)
    # Every fold has the same list of classes, whatever is in it.
    part = open_data(settings(task="classification", split="test", fold=3))
    assert part.class_names == expected


def test_captions_are_the_ones_asked_for():
    concepts = {concept["hexcode"]: concept for concept in emoji.concepts()}
    dataset = open_data(settings(captions=["name", "keywords", "kind", "class"], split="all"))
    for key, texts in zip(hexcodes(dataset), dataset.captions, strict=True):
        concept = concepts[key]
        expected = [concept["name"], ", ".join(concept["keywords"])]
        expected.append(f"{concept['subgroup']}: {concept['name']}")
        expected.append(f"a picture of {concept['subgroup']}.")
        assert texts == list(dict.fromkeys(text for text in expected if text))
        assert texts
    names = open_data(settings(captions=["name"], split="all")).captions
    assert all(len(texts) == 1 for texts in names)


def test_styles_of_one_concept_are_one_group():
    dataset = open_data(settings(styles=["noto", "emojione"], split="test"))
    half = len(dataset) // 2
    assert dataset.keys[0].startswith("noto/")
    assert dataset.keys[half].startswith("emojione/")
    assert dataset.groups[:half] == dataset.groups[half:]
    assert dataset.captions[:half] == dataset.captions[half:]


def test_an_unknown_style():
    with pytest.raises(UsageError, match=r"Unknown emoji style 'twemojy'.*Did you mean 'twemoji'"):
        open_data(settings(styles=["noto", "twemojy"]))
