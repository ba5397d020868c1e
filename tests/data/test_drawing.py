import random

import numpy as np
import pytest

from radapter.data.drawing import LEAST_CONTRAST, WHITE, Drawing, Style, scene

ANYHOW = Style(coloured=1.0, clouds=0.3, smallest=0.4, turn=15.0)


def disc(side=64, colours=None):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = (x**2 + y**2 < (side / 2 - 4) ** 2).astype(np.uint8) * 255
    return Drawing(inside, None if colours is None else np.full((side, side, 3), colours, np.uint8))


def pixels(found):
    return np.asarray(found.picture)


def test_by_default_a_drawing_is_black_on_white_in_full_size():
    drawn = pixels(scene([disc()], random.Random(0), Style()))
    assert (drawn == 255 - disc().coverage[..., None]).all()


def test_a_seed_draws_one_picture_and_another_seed_another():
    first, again, other = (
        pixels(scene([disc(), disc(32)], random.Random(seed), ANYHOW)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_what_a_seed_draws_stays():
    """Pictures of a data set are drawn when they are read: they must not change."""
    found = scene([disc()], random.Random(7), Style(coloured=1.0, smallest=0.5), masks=True)
    inside = np.argwhere(found.coverages[0] == 255)
    ink, ground = pixels(found)[tuple(inside[0])], pixels(found)[0, 0]
    assert ground.tolist() == [38, 166, 18]
    assert ink.tolist() == [255, 255, 255]
    assert (inside.min(0).tolist(), inside.max(0).tolist()) == ([11, 8], [54, 51])


def test_ink_and_ground_can_be_told_apart():
    weights = (0.299, 0.587, 0.114)
    for seed in range(200):
        found = scene([disc()], random.Random(seed), Style(coloured=1.0), masks=True)
        drawn, (mask,) = pixels(found), found.coverages
        ink, ground = drawn[mask == 255].mean(0), drawn[mask == 0].mean(0)
        assert abs((ink - ground) @ weights) >= LEAST_CONTRAST - 1, seed


def test_a_drawing_with_colours_keeps_them_and_its_ground_is_another():
    for seed in range(100):
        found = scene([disc(colours=(200, 30, 40))], random.Random(seed), ANYHOW, masks=True)
        drawn, (mask,) = pixels(found), found.coverages
        assert np.abs(drawn[mask == 255].astype(int) - (200, 30, 40)).max() <= 2
        assert np.abs(drawn[mask == 0].mean(0) - (200, 30, 40)).max() > 20


def test_white_stays_the_ground_of_what_is_not_coloured():
    found = scene([disc(), disc(colours=(0, 200, 0))], random.Random(0), Style(), masks=True)
    outside = (found.coverages[0] == 0) & (found.coverages[1] == 0)
    assert (pixels(found)[outside] == WHITE).all()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_masks_say_where_each_drawing_is(number):
    drawings = [disc(colours=(60 * (i + 1), 0, 255)) for i in range(number)]
    for seed in range(20):
        found = scene(drawings, random.Random(seed), ANYHOW, masks=True)
        assert len(found.coverages) == number
        for i, mask in enumerate(found.coverages):
            share = np.sqrt((mask > 127).mean() * 4 / np.pi) * 64 / 56  # of a disc of 56 in 64
            assert (0.38 if number == 1 else 0.36) < share < (1.05 if number == 1 else 0.55)
            inside = pixels(found)[mask == 255].astype(int)
            assert np.abs(inside - (60 * (i + 1), 0, 255)).max() <= 2


def test_sizes_places_and_turns_are_used_in_full():
    style = Style(smallest=0.4, turn=15.0)
    shares, corners = [], []
    for seed in range(300):
        (mask,) = scene([disc()], random.Random(seed), style, masks=True).coverages
        shares.append(np.sqrt((mask > 127).mean()))
        corners.append(np.argwhere(mask > 127).min(0))
    assert min(shares) < 0.45 * max(shares)
    assert len({tuple(corner) for corner in corners}) > 100
