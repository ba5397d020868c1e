"""What the pictures are made of, and that they can be told apart without colour."""

import pytest
from PIL import Image

from radapter.reporting import curves, plots
from radapter.reporting.plots import Curve


def result(chosen):
    def item(value):
        return {"value": value, "interval": [value - 0.05, value + 0.05]}

    def roles(own, found, shifted):
        names = {"in-distribution": ["own"], "unseen": ["a", "b"], "seen": ["c"]}
        scores = {
            "in-distribution": {"accuracy": item(own), "text_to_image_r1": item(found)},
            "unseen": {"accuracy": item(shifted), "text_to_image_r1": item(shifted / 2)},
            "seen": {"accuracy": item(0.9), "text_to_image_r1": item(0.9)},
        }
        return {role: {"datasets": names[role], **scores[role]} for role in names}

    points = [
        {"alpha": 0.0, "roles": roles(0.5, 0.7, 0.4)},
        {"alpha": 0.5, "roles": roles(0.6, 0.6, 0.3)},
    ]
    return {"points": points, "chosen": chosen, "trained_metric": "accuracy"}


def test_a_curve_is_the_trained_score_against_both_tasks_on_the_shift():
    x, panels = curves.axes(result(0.5))
    assert x == ("in-distribution", "accuracy")
    assert panels == [("unseen", "accuracy"), ("unseen", "text_to_image_r1")]
    assert curves.axis_label(panels[0], result(0.5)) == "class accuracy, %: unseen, mean of 2"
    curve = curves.curve(result(0.5), "mine")
    assert curve.x == [0.5, 0.6]
    assert curve.ys == [[0.4, 0.3], [0.2, 0.15]]
    assert curve.chosen[0] == pytest.approx([0.6, 0.55, 0.65])
    assert curve.chosen[1][1] == pytest.approx([0.15, 0.1, 0.2])
    assert curves.curve(result(0.3), "mine").chosen is None
    found = {**result(0.5), "trained_metric": "text_to_image_r1"}
    assert curves.axes(found)[0] == ("in-distribution", "text_to_image_r1")
    assert curves.curve(found, "mine").x == [0.7, 0.6]


def test_a_suite_of_one_role_has_nothing_to_draw():
    alone = result(0.5)
    for point in alone["points"]:
        point["roles"] = {"in-distribution": point["roles"]["in-distribution"]}
    assert curves.axes(alone) == (("in-distribution", "accuracy"), [])


def test_curves_differ_without_colour(tmp_path):
    assert len({(marker, str(dashes)) for _, marker, dashes in plots.STYLES}) == len(plots.STYLES)
    drawn = [curves.curve(result(0.5), name) for name in ("one", "two")]
    plots.trade_off(drawn, "x", ["left", "right"], tmp_path / "a.png")
    plots.trade_off(drawn, "x", ["left", "right"], tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000
    plots.trade_off([Curve("one", [0.5, 0.6], [[0.4, 0.3]])], "x", ["y"], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
