from collections import Counter

import pytest

from radapter import recipe as recipes
from radapter.data import emoji, open_data
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.icons import IconsData
from radapter.errors import UsageError
from radapter.evaluation.suite import load_suite

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


SEEN = {"task": "classification", "classes": "seen"}
UNSEEN = {"task": "classification", "classes": "unseen"}


def test_five_draws_part_the_large_subgroups():
    sizes = Counter(concept["subgroup"] for concept in emoji.concepts())
    large = {name for name, size in sizes.items() if size >= 8}
    draws = []
    for draw in range(1, 6):
        seen, unseen = (
            open_data(settings(**which, draw=draw, split="all")) for which in (SEEN, UNSEEN)
        )
        assert (len(seen.class_names), len(unseen.class_names)) == (37, 18)
        assert {*seen.class_names} | {*unseen.class_names} == large
        draws.append(tuple(unseen.class_names))
        for dataset in (seen, unseen):
            names = dataset.class_names
            assert names == sorted(names)
            assert {*dataset.labels} == {*range(len(names))}
            subgroup = {c["hexcode"]: c["subgroup"] for c in emoji.concepts()}
            assert [names[label] for label in dataset.labels] == [
                subgroup[code] for code in hexcodes(dataset)
            ]
    assert len(set(draws)) == 5
    with pytest.raises(ValueError, match="less than or equal to 5"):
        settings(draw=6)


def test_a_part_of_a_draw_has_splits_and_captions_of_its_own_classes():
    parts = [
        hexcodes(open_data(settings(**SEEN, draw=2, split=split)))
        for split in ("train", "validation", "test", "all")
    ]
    assert sorted(parts[0] + parts[1] + parts[2]) == sorted(parts[3])
    assert hexcodes(open_data(settings(classes="seen", draw=2, split="all"))) == parts[3]
    dataset = open_data(settings(**UNSEEN, draw=2, fold=3, split="test"))
    assert dataset.source == "emoji noto, test of fold 3, unseen classes of draw 2"
    assert dataset.protocol == {"classes": "unseen classes of draw 2"}


def test_a_suite_takes_the_fold_and_the_draw_of_the_run():
    suite = load_suite("emoji-ucdr")
    recipe = recipes.load(recipes.shipped()["emoji-ucdr"])
    for draw in (1, 4):
        data = recipe.data.model_copy(update={"draw": draw, "fold": 2})
        fitted = suite.for_recipe(recipe.model_copy(update={"data": data}))
        assert [d.name for d in fitted.datasets] == [d.name for d in suite.datasets]
        sections = [section for d in fitted.datasets for section in d.all_data()]
        assert {(s.draw, s.fold) for s in sections} == {(draw, 2)}
    trained = open_data(data)
    for name, tasks in fitted.open().items():
        found = tasks["picture-retrieval"]
        names = {found.class_names[label] for label in found.labels}
        generalised = name.endswith("generalised")
        overlap = {"udcdr": 37, "uccdr": 0, "ucdr": 37 if generalised else 0}
        assert len(names & {*trained.class_names}) == overlap[name.partition("-")[0]], name
        assert not {*trained.keys} & {*found.keys}
        if name.startswith("udcdr"):  # the concepts are others, too
            assert not {*trained.groups} & {*found.groups}


def test_classes_are_unseen_by_a_run_that_was_trained_on_the_seen_ones():
    seen, unseen, every = (settings(classes=c, draw=3) for c in ("seen", "unseen", "all"))
    assert unseen.for_model_trained_on(every) is None
    assert unseen.for_model_trained_on(unseen) is None
    assert seen.for_model_trained_on(every) == seen
    assert every.for_model_trained_on(seen) == seen
    assert settings(**UNSEEN).for_model_trained_on(seen).draw == 3
    assert unseen.for_model_trained_on(IconsData(source="icons")) == unseen
    left = load_suite("emoji-ucdr").for_recipe(recipes.load(recipes.shipped()["emoji"]))
    assert {d.name for d in left.datasets} == {"udcdr-emojione", "udcdr-emojione-monotone"}


def test_parts_of_one_draw_have_nothing_in_common():
    seen, unseen, every = (settings(classes=c) for c in ("seen", "unseen", "all"))
    assert not seen.overlaps(unseen)
    assert not unseen.overlaps(seen)
    assert seen.overlaps(settings(classes="unseen", draw=2))
    assert seen.overlaps(every)
    assert every.overlaps(unseen)
    assert not seen.overlaps(settings(classes="seen", styles=["twemoji"]))
    assert not seen.overlaps(IconsData(source="icons"))


def test_what_is_written_of_all_classes_names_no_draw():
    """A study knows its results on a suite by a hash of what the suite says."""
    assert not {"classes", "draw"} & settings(draw=2).model_dump().keys()
    section = settings(classes="seen", draw=2)
    assert EmojiData.model_validate(section.model_dump()) == section
