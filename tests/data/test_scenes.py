"""Scenes of built-in icons: what is in the masks is what is in the pictures."""

import numpy as np
import pytest

from radapter import recipe
from radapter.data import emoji, icons, open_data
from radapter.data.sources.scenes import ScenesData
from radapter.errors import UsageError


def opened(**settings):
    return open_data(ScenesData(source="scenes", **settings))


def test_masks_are_exact_on_white():
    """Every pixel that is not white is a drawing's, but for its half transparent edge."""
    dataset = opened(pictures=6, ground="white", kinds=["solid"])
    for i in range(6):
        grey = np.asarray(dataset.read(i).convert("L"))
        mask = dataset.mask(i)
        assert grey[mask > 0].max() <= 128
        assert grey[mask == 0].min() >= 127
        regions = dataset.regions(i)
        assert 2 <= len(regions) <= 4
        assert (np.sum(regions, axis=0) == (mask > 0)).all()  # apart from each other


def test_grounds_and_seeds_make_other_scenes_and_the_same_one_again():
    first, again, other = (opened(scenes_seed=seed, pictures=2) for seed in (0, 0, 1))
    assert first.read(1).tobytes() == again.read(1).tobytes() != other.read(1).tobytes()
    colours = {}
    for ground in ("white", "plain", "clouded"):
        dataset = opened(ground=ground, pictures=1)
        colours[ground] = len(np.unique(np.asarray(dataset.read(0))[dataset.mask(0) == 0], axis=0))
    assert colours["clouded"] > 500
    assert dataset.mask(0).shape == (128, 128)


def test_words_are_a_part_of_the_classes_whatever_is_drawn_of_them():
    assert len(opened().class_names) == 40
    assert set(opened(words=10).class_names) < set(opened(words=20).class_names)
    drawn = {
        icon.label for icon in icons.pictures() if (icon.kind, icon.split) == ("solid", "test")
    }
    unseen = {n for n, facts in enumerate(icons.classes()) if facts["half"] == "unseen"}
    names = opened(words=None, classes="unseen", kinds=["solid"]).class_names
    assert names == [icons.classes()[n]["name"] for n in sorted(drawn & unseen)]


def test_scenes_are_not_trained_on():
    text = "name: a\nmodel: m\nmethod: {name: full}\ndata: {source: scenes}\n"
    with pytest.raises(UsageError, match="train on `source: icons`"):
        recipe.parse(text)


def test_emoji_have_masks_that_are_theirs():
    """What is not of the mask is white but for the edge, and the mask is no full square."""
    for style in emoji.styles():
        for concept in emoji.concepts()[::151]:
            grey = np.asarray(emoji.picture(style, concept["hexcode"]).convert("L"), int)
            mask = emoji.mask(style, concept["hexcode"])
            assert 20 < mask.sum() < mask.size
            assert grey[~mask].mean() > 225
            assert grey[mask].mean() < grey[~mask].mean()
    dataset = opened(of="emoji", pictures=3, ground="clouded")
    assert len(dataset.class_names) == 40
    names = {c["name"] for c in emoji.concepts() if c["fold"] == 0}
    assert set(dataset.class_names) < names
    assert (np.sum(dataset.regions(2), axis=0) == (dataset.mask(2) > 0)).all()
    with pytest.raises(UsageError, match="Unknown emoji style 'nota'. Did you mean 'noto'"):
        opened(of="emoji", styles=["nota"])
