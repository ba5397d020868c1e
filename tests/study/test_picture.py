"""The picture of a study, of the numbers that its table has."""

import shutil
from pathlib import Path

import pytest

from radapter.errors import UsageError
from radapter.reporting import plots, study_picture
from radapter.study.results import Folder
from radapter.study.table import summarise

EXAMPLE = Path(__file__).with_name("example")


@pytest.fixture
def summary(tmp_path):
    return summarise(Folder(shutil.copytree(EXAMPLE, tmp_path / "example")))


def test_curves_are_the_means_of_the_table(summary, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        study_picture,
        "trade_off",
        lambda curves, x, panels, path: drawn.update(curves=curves, x=x, panels=panels),
    )
    study_picture.draw(summary, tmp_path / "a.png")
    assert drawn["x"] == "class accuracy, %: sharp"
    assert drawn["panels"][0] == "class accuracy, %: shifts, mean of 2"
    trained = [method for method in summary["methods"] if method["kind"] == "trained"]
    assert [curve.label for curve in drawn["curves"]] == [method["label"] for method in trained]
    places = [column["place"] for column in summary["columns"]]
    of_x, of_y = places.index("sharp"), places.index("shifts")
    for curve, method in zip(drawn["curves"], trained, strict=True):
        assert curve.x == [point["values"][of_x] for point in method["curve"]]
        assert curve.ys[0] == [point["values"][of_y] for point in method["curve"]]
        value = method["values"][of_y]
        assert curve.chosen[1][0] == [value["mean"], *value["interval"]]


def test_the_file_is_a_picture(summary, tmp_path):
    study_picture.draw(summary, tmp_path / "a.png")
    width, height = plots.pyplot_to_file().imread(tmp_path / "a.png").shape[1::-1]
    assert width > height > 300


def test_many_methods_have_a_row_each(summary, tmp_path, monkeypatch):
    more = [summary["methods"][-1] | {"label": f"number {n}"} for n in range(20)]
    summary["methods"] = [*summary["methods"], *more]
    drawn = {}
    real = study_picture.dots
    monkeypatch.setattr(
        study_picture, "dots", lambda *given: (drawn.update(rows=given[0]), real(*given))
    )
    study_picture.draw(summary, tmp_path / "a.png")
    assert list(drawn["rows"]) == [method["label"] for method in summary["methods"]]
    place = [column["place"] for column in summary["columns"]].index("sharp")
    for method in summary["methods"]:
        value = method["values"][place]
        assert drawn["rows"][method["label"]][0] == [value["mean"], *value["interval"]]
    width, height = plots.pyplot_to_file().imread(tmp_path / "a.png").shape[1::-1]
    assert height > 1000 > width / 2


def test_a_study_without_another_set_has_none(summary, tmp_path):
    summary["columns"] = [column | {"role": "in-distribution"} for column in summary["columns"]]
    with pytest.raises(UsageError, match="no picture of this study"):
        study_picture.draw(summary, tmp_path / "a.png")
