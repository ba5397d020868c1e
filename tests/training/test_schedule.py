import itertools
import math

import pytest

from radapter.training.schedule import learning_rate


def rates(**settings):
    return [learning_rate(step, **settings) for step in range(settings["steps"])]


def test_warm_up_is_linear_and_ends_at_the_peak():
    found = rates(steps=100, peak=5e-4, warmup_steps=10)
    assert found[:10] == pytest.approx([5e-4 * k / 10 for k in range(1, 11)])
    assert max(found) == found[9] == found[10] == pytest.approx(5e-4)


@pytest.mark.parametrize("final", [0.0, 1e-6, 1e-4])
def test_a_cosine_falls_to_its_end(final):
    found = rates(steps=100, peak=1e-3, warmup_steps=20, final=final)
    for step in range(20, 100):
        cosine = math.cos(math.pi * (step - 20) / 80)
        assert found[step] == pytest.approx((1e-3 + final) / 2 + (1e-3 - final) / 2 * cosine)
    assert all(a > b for a, b in itertools.pairwise(found[20:]))
    assert learning_rate(60, steps=100, peak=1e-3, warmup_steps=20, final=final) == pytest.approx(
        (1e-3 + final) / 2
    )
    assert learning_rate(100, steps=100, peak=1e-3, warmup_steps=20, final=final) == final


def test_a_run_that_ends_within_its_warm_up():
    assert rates(steps=5, peak=1.0, warmup_steps=10) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates(steps=1, peak=1.0) == [1.0]
    assert all(math.isfinite(rate) for rate in rates(steps=10, peak=1.0, warmup_steps=10))
