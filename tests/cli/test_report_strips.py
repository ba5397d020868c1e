"""report: queries with what was found, and pixels with their names, of data that may be shown."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from radapter.evaluation.answers import read_answers, unpacked
from radapter.reporting.report.gallery import Gallery
from radapter.reporting.report.strips import OVER, colour_of, painted, strips

from .elements import Read

EMOJI = {"source": "emoji", "styles": ["twemoji"], "split": "test"}
NOTO = {**EMOJI, "styles": ["noto"]}
SETS = {
    "picture-retrieval": {"data": EMOJI, "gallery": {"data": [NOTO], "leave_out": "group"}},
    "composed": {"data": {"source": "emoji-edits", "styles": ["twemoji"], "split": "all"}},
    "segmentation": {"data": {"source": "scenes", "pictures": 4}, "dense": {"by": "regions"}},
}


@pytest.fixture
def scored(cli, merged):
    """A run with a result on one data set by one task."""

    def of(task, **more):
        described = {"name": "one", "role": "zero-shot", **SETS[task], **more}
        suite = {"name": "mine", "tasks": [task], "templates": ["{}"], "datasets": [described]}
        (merged.path.parents[1] / "mine.yaml").write_text(json.dumps(suite))
        outcome = cli("eval", "--suite", "mine.yaml")
        assert outcome.code == 0, outcome.err
        (path,) = merged.evaluations.glob("mine-*.json")
        return merged, path

    return of


def page_of(cli, run):
    outcome = cli("report", run.path, "--out", "r.html")
    assert outcome.code == 0, outcome.err
    text = (run.path.parents[1] / "r.html").read_text(encoding="utf-8")
    return text.split('id="pictures"')[1].split('id="protocol"')[0], text


def check_searched(cli, task, run, path, metric):
    models = json.loads(path.read_text())["models"]
    answers = read_answers(path)
    facts = answers["searched"]["one"]
    before, after = (models[answers[m]]["datasets"]["one"] for m in ("before", "after"))
    moved = len(facts["gained"]) - len(facts["lost"])
    if metric is not None:
        assert moved == round((after[metric]["value"] - before[metric]["value"]) * facts["queries"])
    assert all(was == 1 != now for *_, was, now in facts["lost"])
    assert all(now == 1 != was for *_, was, now in facts["gained"])
    for *_, right, _, found, _, rank in facts["lost"] + facts["gained"]:
        assert (found == right) is (rank == 1)
    shown, text = page_of(cli, run)
    found = Read(text)
    rows = [e for e in found.all("div") if e["attributes"].get("class") == "strip"]
    number = min(4, len(facts["lost"])) + min(4, len(facts["gained"]))
    assert number > 0
    assert len(rows) == number
    pictures = found.all("img")
    assert len(pictures) == 4 * number
    assert all(img["attributes"]["src"].startswith("data:image/png;base64,") for img in pictures)
    words = f"{len(facts['lost']):,} lost, {len(facts['gained']):,} gained"
    assert words in shown
    assert "twemoji" in text.split("Whose work is on this page")[1]
    return facts, shown


def test_pictures_that_look_for_pictures(cli, scored):
    run, path = scored("picture-retrieval")
    facts, shown = check_searched(cli, "picture-retrieval", run, path, None)
    assert (
        facts["queries"]
        == json.loads(path.read_text())["models"]["zero-shot"]["datasets"]["one"]["queries"]
    )
    assert "Lost: zero-shot finds a right picture first" in shown


@pytest.mark.slow
def test_pictures_by_a_picture_and_a_change(cli, scored):
    run, path = scored("composed")
    facts, shown = check_searched(cli, "composed", run, path, "composed_r1")
    assert facts["ways"] == ["picture and text"] * 2
    assert "zero-shot, picture and text" in shown
    said = re.findall(r'<div class="strip">\s*<p>(.*?)</p>', shown)
    assert {row[1] for row in facts["lost"] + facts["gained"]} >= set(said)


@pytest.mark.slow
def test_pixels_with_their_names(cli, scored):
    run, path = scored("segmentation")
    facts = read_answers(path)["named"]["one"]
    assert len(facts["maps"]) == 3
    shown, text = page_of(cli, run)
    assert len(Read(text).all("img")) == 4 * 3
    assert "of pixels right" in shown
    assert "background: #" in shown
    gallery = Gallery()
    (wall,) = strips(gallery, read_answers(path))
    ((_, rows),) = wall.groups
    assert [frame.title for frame in rows[0].frames] == [
        "picture", "true classes", "zero-shot", "alpha 0.50",
    ]  # fmt: skip
    assert wall.why_names == ""
    assert gallery.credits()[0][1]  # authors of icons
    key, was, _ = facts["maps"][0]
    assert unpacked(was).shape == (128, 128)
    assert key.startswith("icons/plain/0/")


def test_data_of_ones_own_has_names_alone(cli, scored, shapes):
    own = {"source": "folder", "root": str(shapes), "split": "all"}
    run, path = scored("picture-retrieval", data=own, gallery={"data": [own]})
    shown, _ = page_of(cli, run)
    assert "<img" not in shown
    if read_answers(path)["searched"]["one"]["lost"]:
        assert "nothing says that these pictures may be passed on" in shown


def test_data_that_cannot_be_opened_any_more_is_said():
    facts = {
        "set": {"name": "one", "role": "zero-shot", "data": {**EMOJI, "styles": ["none"]}},
        "task": "picture-retrieval", "queries": 3, "ways": ["", ""], "lost": [],
        "gained": [["a", "cat", "b", "c", "b", 2, 1]],
    }  # fmt: skip
    answers = {"before": "zero-shot", "after": "x", "searched": {"one": facts}}
    (wall,) = strips(Gallery(), answers)
    assert "Unknown emoji style 'none'" in wall.why_names
    ((_, lost), (_, gained)) = wall.groups
    assert lost == []
    assert [(f.name, f.picture, f.right) for f in gained[0].frames] == [
        ("a", None, None), ("b", None, None), ("c", None, False), ("b", None, True),
    ]  # fmt: skip
    assert gained[0].frames[1].text == "rank 2 → 1"


def test_pictures_of_several_sets_are_names():
    icons = {"source": "icons", "kinds": ["line"]}
    facts = {
        "set": {"name": "one", "role": "zero-shot", "data": EMOJI, "gallery": {"data": [icons]}},
        "task": "picture-retrieval", "queries": 3, "ways": ["", ""], "lost": [], "gained": [],
    }  # fmt: skip
    (wall,) = strips(Gallery(), {"before": "a", "after": "b", "searched": {"one": facts}})
    assert "several built-in sets" in wall.why_names


def test_colours_lie_over_the_grey_picture():
    picture = Image.new("RGB", (4, 3), (200, 100, 0))
    numbers = np.zeros((3, 4), int)
    numbers[1, 2], numbers[0, 0] = 5, -1
    grey = np.asarray(picture.convert("L"))[0, 0]
    found = np.asarray(painted(picture, numbers))
    assert (found[0, 0] == grey).all()
    wanted = (1 - OVER) * grey + OVER * np.array(colour_of(5))
    np.testing.assert_allclose(found[1, 2], wanted, atol=1)
    assert len({colour_of(n) for n in range(1, 170)}) == 169
