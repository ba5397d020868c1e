"""report: one page that loads nothing, says everything in words and tables too, and opens."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from radapter.data import emoji
from radapter.errors import UsageError
from radapter.evaluation.answers import read_answers
from radapter.evaluation.scores import name_of
from radapter.reporting import averages, comparison, comparison_tables, study_tables
from radapter.reporting.report import page
from radapter.reporting.report.gallery import EACH, Gallery, drawn
from radapter.reporting.report.over_steps import median_curve
from radapter.run import Run
from radapter.study.results import Folder
from radapter.study.table import summarise

from .elements import Read

SUITE = """\
name: mine
tasks: [classification]
templates: ["a {{}}"]
datasets:
  - {{name: own, role: in-distribution, data: {{source: folder, root: {root}, split: all}}}}
  - {{name: other, role: shifted, data: {{source: folder, root: {root}, split: all}}}}
"""
EXAMPLE = Path(__file__).parents[1] / "study/example"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def runs(cli, merged, shapes, tmp_path, kept):
    """Two runs that differ in seed alone, with results on a suite and over alphas; their names
    would be HTML."""
    if not (kept / "eval").is_dir():
        (tmp_path / "mine.yaml").write_text(SUITE.format(root=shapes))
        for more in ([], ["--alphas", "0:1:0.5"]):
            outcome = cli("eval", "--suite", "mine.yaml", *more)
            assert outcome.code == 0, outcome.err
        shutil.copytree(merged.evaluations, kept / "eval")
    elif not merged.evaluations.is_dir():
        shutil.copytree(kept / "eval", merged.evaluations)
    found = []
    for seed, name in enumerate(("<b>one&amp;", "<img src=x>-two")):
        run = Run(shutil.copytree(merged.path, merged.path.with_name(name)))
        recipe = (run.path / "recipe.yaml").read_text()
        (run.path / "recipe.yaml").write_text(re.sub(r"(?m)^seed: \d+", f"seed: {seed}", recipe))
        found.append(run)
    return found


@pytest.fixture
def text(cli, runs, kept):
    """The page on both runs."""
    if not (kept / "page.html").is_file():
        outcome = cli("report", *(run.path for run in runs), "--out", kept / "page.html")
        assert outcome.code == 0, outcome.err
    return (kept / "page.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(text):
    read = Read(text)
    for element in read.elements:
        for name, value in element["attributes"].items():
            if name in ("src", "href", "action", "data", "poster", "srcset", "background"):
                assert value.startswith(("data:", "#")), (element["tag"], name, value)
            assert not name.startswith("on")
    for style in read.all("style"):
        assert not re.search(r"url\(|@import|//", style["text"])
    policy = next(
        m["attributes"]["content"] for m in read.all("meta") if "http-equiv" in m["attributes"]
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = [s["text"] for s in read.all("script") if "type" not in s["attributes"]]
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "http" not in scripts[1]


def test_plotly_is_the_pinned_one_and_its_licence_goes_along(text):
    content = page.PLOTLY.read_bytes()
    assert hashlib.sha256(content).hexdigest() == page.PLOTLY_SHA256
    assert content.decode() in text
    version = re.search(r"basic - minified\) v([\d.]+)", content.decode())[1]
    assert version in page.PLOTLY.name
    assert f"plotly.js {version}" in text
    notice = (page.FOLDER / "NOTICE.md").read_text()
    assert page.PLOTLY.name in notice
    assert page.PLOTLY_SHA256 in notice
    assert "Permission is hereby granted" in notice
    assert any(pre["text"] == notice for pre in Read(text).all("pre"))


def test_every_figure_has_its_text_and_its_data(text):
    read = Read(text)
    plots = [e for e in read.elements if "data-plot" in e["attributes"]]
    figures = json.loads(next(s["text"] for s in read.all("script") if "type" in s["attributes"]))
    assert [int(plot["attributes"]["data-plot"]) for plot in plots] == list(range(len(figures)))
    for plot, figure in zip(plots, figures, strict=True):
        assert plot["attributes"]["role"] == "img"
        assert len(plot["attributes"]["aria-label"]) > 10
        assert figure["data"]
    whole = [f for f in read.all("figure") if f["attributes"].get("class") != "picture"]
    assert len(whole) >= 4  # over alpha, training, calibration, cost
    for part in text.split("<figure>")[1:]:
        own = part.split("</figure>")[0]
        rows = int(re.search(r"The figure as a table of (\d+) row", own)[1])
        assert own.count("<tr>") == rows + 1


def test_the_curve_has_the_numbers_of_the_results(text, runs):
    read = Read(text)
    figures = json.loads(next(s["text"] for s in read.all("script") if "type" in s["attributes"]))
    result = json.loads((runs[0].evaluations / "mine-alphas.json").read_text())
    shares = [100 * p["datasets"]["other"]["accuracy"]["value"] for p in result["points"]]
    curves = [t for f in figures for t in f["data"] if "alpha" in str(t.get("text"))]
    assert curves
    assert curves[0]["y"] == pytest.approx(shares)
    words = f"other (shifted): {shares[0]:.1f}"
    assert words in curves[0]["text"][0]  # with the deviation over seeds, as there are two
    assert "sd 0.0" in curves[0]["text"][0]


def test_the_tables_are_those_of_compare(text, runs):
    read = Read(text)
    compared = comparison.compare_runs(runs)
    averages.add_averages(compared)
    there = {element["text"] for element in read.all("td") + read.all("th")}
    tables = list(comparison_tables.tables(compared))
    assert len(tables) > 1
    for table in tables:
        assert {c.title for c in table.columns} <= there
        assert {str(c) for cells, _ in table.rows for c in cells} <= there
    for line in comparison_tables.footnotes(compared):
        assert any(line in p["text"] for p in read.all("p"))


def test_names_are_text_and_not_html(text, runs):
    read = Read(text)
    assert not [img for img in read.all("img") if img["attributes"].get("src") == "x"]
    for run in runs:
        assert run.name in read.all("body")[0]["text"]
    figures = next(s["text"] for s in read.all("script") if "type" in s["attributes"])
    assert "<" not in figures
    assert "<img" not in json.dumps(json.loads(figures))


def test_pictures_of_data_of_ones_own_are_names_alone(text):
    assert "nothing says that these pictures may be passed on" in text
    assert "<img" not in text.split('id="pictures"')[1].split('id="protocol"')[0]


def test_it_is_small(text):
    assert len(text.encode()) < page.LARGEST


def test_answers_add_up_to_the_change_of_accuracy(runs):
    path = runs[0].evaluations / "mine-alpha-0.50.json"
    models = json.loads(path.read_text())["models"]
    answers = read_answers(path)
    assert (answers["before"], answers["after"]) == ("zero-shot", "alpha 0.50")
    for name, facts in answers["datasets"].items():
        before, after = (
            models[m]["datasets"][name]["accuracy"]["value"] for m in ("zero-shot", "alpha 0.50")
        )
        assert len(facts["gained"]) - len(facts["lost"]) == round(
            (after - before) * facts["pictures"]
        )
        assert all(label == was != now for _, label, was, now in facts["lost"])
        assert all(label == now != was for _, label, was, now in facts["gained"])


def test_a_damaged_file_of_answers_is_named(cli, runs):
    path = runs[0].evaluations / "answers" / "mine-alpha-0.50.json"
    path.write_text(path.read_text()[:-9])
    outcome = cli("report", runs[0].path)
    assert (outcome.code, outcome.err.count("is damaged: evaluate again.")) == (4, 1)


def test_a_run_without_results(cli, trained):
    outcome = cli("report", trained.name, "--out", "r.html", "--json")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["bytes"] == (trained.path.parents[1] / "r.html").stat().st_size
    read = Read((trained.path.parents[1] / "r.html").read_text())
    assert f"{trained.name} has no results." in read.all("body")[0]["text"]


def test_out_is_a_page(cli, trained):
    outcome = cli("report", "--out", "r.pdf")
    said = "error: --out takes a name that ends in .html, found 'r.pdf'.\n"
    assert (outcome.code, outcome.err) == (2, said)


# ---------------------------------------------------------------- of a study


def test_a_study_has_its_table_and_its_curves(cli, tmp_path):
    outcome = cli("report", EXAMPLE, "--out", "study.html")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "study.html").read_text(encoding="utf-8")
    read = Read(text)
    assert "Study: example" in read.all("h1")[0]["text"]
    summary = summarise(Folder(EXAMPLE))
    there = {element["text"] for element in read.all("td") + read.all("th")}
    for table in study_tables.tables(summary):
        assert {str(cell) for cells, _ in table.rows for cell in cells} <= there
    said = read.all("body")[0]["text"]
    for line in study_tables.footnotes(summary):
        assert line in said
    figures = json.loads(next(s["text"] for s in read.all("script") if "type" in s["attributes"]))
    curves = [t for f in figures for t in f["data"] if "alpha" in str(t.get("text"))]
    trained = [method for method in summary["methods"] if method["kind"] == "trained"]
    assert len(curves) == 2 * 3 * len(trained)  # a curve and a mean, on three places
    for method in trained:
        means = [100 * value["mean"] for value in method["values"]]
        own = [c for c in curves if method["label"] in c["text"][0] and len(c["x"]) == 1]
        assert [c["y"][0] for c in own] == pytest.approx(means[1:])
        assert [c["x"][0] for c in own] == pytest.approx([means[0]] * 3)
        low, high = method["values"][1]["interval"]
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in own[0]["text"][0]


def test_a_study_has_curves_of_training(cli, tmp_path):
    """The median over seeds, with the lowest and the highest; without them the page says so."""
    place = shutil.copytree(EXAMPLE, tmp_path / "example")
    text = _page(cli, place, tmp_path)
    figures = json.loads(next(s["text"] for s in Read(text).all("script") if s["attributes"]))
    titled = [f for f in figures if "title" in f["layout"]["yaxis"]]
    panels = {f["layout"]["yaxis"]["title"]["text"]: f for f in titled}
    for title, middle, low, high in (
        ("loss", [2.1, 1.2, 0.6], [2.0, 1.0, 0.5], [2.2, 1.4, 0.7]),
        (f"validation, {name_of('accuracy')}, %", [45.0, 61.0], [40.0, 60.0], [50.0, 62.0]),
    ):
        bands = [t for t in panels[title]["data"] if t.get("fill") == "toself"]
        lines = [t for t in panels[title]["data"] if "fill" not in t]
        assert len(bands) == len(lines) == 2  # full and R-Adapter
        assert lines[0]["x"] == [1, 5, 9][-len(middle) :]
        assert lines[0]["y"] == pytest.approx(middle)
        assert bands[0]["y"] == pytest.approx(high + low[::-1])
        assert bands[0]["x"] == lines[0]["x"] + lines[0]["x"][::-1]
    assert "<td>1.2 (1 to 1.4)</td>" in text
    for path in place.glob("*-seed*.json"):
        content = json.loads(path.read_text())
        content.pop("curves", None)
        path.write_text(json.dumps(content))
    assert "The results have no curves of training" in _page(cli, place, tmp_path)


def _page(cli, place, folder):
    outcome = cli("report", place)
    assert outcome.code == 0, outcome.err
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_median_is_taken_where_all_runs_were_trained():
    one, other = [(2, 4.0), (4, 2.0), (6, 1.0)], [(1, 9.0), (5, 1.0)]
    assert median_curve([one]) == one
    assert median_curve([one, one]) == [(x, y, y, y) for x, y in one]
    assert median_curve([one, other]) == [(5, 1.25, 1.0, 1.5)]


def test_a_study_file_means_its_results(cli, tmp_path):
    study = json.loads((EXAMPLE / "study.json").read_text())["study"]
    (tmp_path / "mine.yaml").write_text(
        "name: example\nrecipe: emoji\nbaseline: one\nsuites: [emoji-shifts]\n"
        "methods: {one: {alpha: 0}, two: {}}\n"
    )
    outcome = cli("report", "mine.yaml")
    assert (outcome.code, outcome.err) == (
        4,
        "error: results/example has no results of the study example. Type first: radapter study "
        "mine.yaml. If they are elsewhere, name their folder: radapter report mine.yaml --results "
        "FOLDER\n",
    )
    outcome = cli("report", "mine.yaml", "--results", "nowhere")
    assert (outcome.code, outcome.err) == (
        4,
        "error: nowhere has no results of the study example. Type first: radapter study "
        "mine.yaml\n",
    )
    outcome = cli("report", "mine.yaml", "--results", EXAMPLE)
    assert outcome.code == 0, outcome.err
    assert f"Study: {study['name']}" in (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    shutil.copytree(EXAMPLE, tmp_path / "results/example")
    outcome = cli("report", "mine.yaml")
    assert outcome.code == 0, outcome.err
    assert f"Study: {study['name']}" in (tmp_path / "report.html").read_text()
    outcome = cli("report", "example", "--out", "two.html")
    assert outcome.code == 0, outcome.err
    assert f"Study: {study['name']}" in (tmp_path / "two.html").read_text()


def test_results_are_of_the_study_that_is_named(cli):
    outcome = cli("report", "icons", "--results", EXAMPLE)
    said = f"error: {EXAMPLE} has results of the study example, not of icons.\n"
    assert (outcome.code, outcome.err) == (2, said)
    outcome = cli("report", "--results", EXAMPLE)
    assert (outcome.code, outcome.err) == (
        2,
        "error: --results is where the results of one study are. Name that study: radapter report "
        f"STUDY --results {EXAMPLE}\n",
    )


def test_a_name_is_a_run_before_it_is_a_study(cli, trained, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "results" / trained.name)
    outcome = cli("report", trained.name)
    assert outcome.code == 0, outcome.err
    assert "Study:" not in (tmp_path / "report.html").read_text()


def test_a_study_stands_alone(cli, trained):
    outcome = cli("report", EXAMPLE, trained.name)
    assert (outcome.code, outcome.err) == (
        2,
        f"error: A report is on one study or on runs: {EXAMPLE} is a study. Name it alone.\n",
    )


# ---------------------------------------------------------------- pictures


def answers_of(styles, rows):
    section = {"source": "emoji", "styles": styles, "split": "test"}
    facts = {"data": section, "pictures": 9, "lost": rows, "gained": []}
    return {"schema_version": 1, "before": "a", "after": "b", "datasets": {"one": facts}}


def test_pictures_that_may_be_passed_on_are_shown_with_their_authors():
    concept = next(
        c
        for c in emoji.concepts()
        if emoji.in_split(c, "test", 0) and c["subgroup"] in emoji.class_names()
    )
    key = f"noto/{concept['hexcode']}"
    gallery = Gallery()
    (wall,) = gallery.walls(answers_of(["noto"], [[key, "x", "x", "y"]]))
    assert wall.lost[0].picture.startswith("data:image/png;base64,")
    assert wall.why_names == ""
    ((_, authors, licences),) = gallery.credits()
    assert list(authors) == ["noto"]
    assert "Google" in authors["noto"]
    assert list(licences) == ["Apache License 2.0"]
    html = page.render(page.Page("t", "", [], gallery.credits()))
    assert "Copyright Google Inc." in html
    assert "Microsoft" not in html


def test_pictures_that_are_gone_are_names():
    section = {"source": "folder", "root": "/nowhere", "split": "all"}
    for data, why in (
        (section, "may be passed on"),
        ({"source": "emoji", "styles": ["x"]}, "Unknown emoji style"),
    ):
        answers = answers_of([], [["a.png", "x", "x", "y"]])
        answers["datasets"]["one"]["data"] = data
        (wall,) = Gallery().walls(answers)
        assert wall.lost[0].picture is None
        assert why in wall.why_names


def test_a_page_leaves_out_the_pictures_that_it_has_no_room_for(tmp_path, monkeypatch):
    """The last ones, all of whose names stay; a page that is too large without any is refused."""
    concepts = [c for c in emoji.concepts() if emoji.in_split(c, "test", 0)][:6]
    rows = [[f"noto/{c['hexcode']}", "x", "x", "y"] for c in concepts]
    gallery = Gallery()
    walls = page.Walls("one", "", gallery.walls(answers_of(["noto"], rows)))
    section = page.Section("pictures", "Pictures", [walls])
    whole = page.Page("t", "", [section], gallery.credits())
    path = tmp_path / "page.html"
    size = page.write(whole, path)
    everything = path.read_text()
    assert everything.count("<img") == len(rows)
    assert page.NO_ROOM not in everything
    first = len(walls.walls[0].lost[0].picture)
    for limit, shown in ((size, 6), (size - 1, 5), (size - gallery.used + first + 200, 1)):
        monkeypatch.setattr(page, "LARGEST", limit)
        assert page.write(whole, path) == path.stat().st_size <= limit
        assert path.read_text().count("<img") == shown
        assert (page.NO_ROOM in path.read_text()) == (shown < 6)
        assert all(key in path.read_text() for key, *_ in rows)
    monkeypatch.setattr(page, "LARGEST", 1_000_000)
    with pytest.raises(UsageError, match=r"would have 1\.2 MB without pictures, and .* 1\.0\. Re"):
        page.write(whole, path)


def test_which_pictures_are_shown_does_not_depend_on_their_order():
    rows = [[f"{i}.png", "x", "x", "y"] for i in range(50)]
    assert drawn(rows) == drawn(rows[::-1])
    assert len(drawn(rows)) == EACH
    assert drawn(rows) != rows[:EACH]


# ---------------------------------------------------------------- in a browser


def browse(path, folder):
    """(the document after the scripts, what the console said)"""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
         "--enable-logging=stderr", "--virtual-time-budget=8000", "--window-size=1280,900",
         "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node here")
@pytest.mark.parametrize(
    "rising",
    [
        ["50.0 s", "3 min 20 s", "1 h 5 min", "2 d 3 h"],
        ["9.5 kB", "20 kB", "1.2 MB", "3 GB"],
        ["-", "2.1 ±3.0", "10.0 ±0.4", "1,200"],
        ["AdamW", "full", "LoRA"],
    ],
)
def test_a_column_sorts_by_what_it_says(rising):
    """With the page's own functions, in Node."""
    script = (page.FOLDER / "page.js").read_text(encoding="utf-8")
    own = script[script.index("const units") : script.index("for (const table of")]
    shuffled = json.dumps([*rising[1::2], *rising[::2]])
    show = f"console.log(JSON.stringify({shuffled}.sort((a, b) => compare(a, b))))"
    done = subprocess.run(["node", "-e", own + show], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == rising


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_it_opens_in_a_browser_which_draws_all_and_says_nothing(text, kept, tmp_path):
    shown, said = browse(kept / "page.html", tmp_path)
    assert said == []
    read = Read(shown)
    plots = [e["attributes"] for e in read.elements if "data-plot" in e["attributes"]]
    assert plots
    assert all("js-plotly-plot" in plot["class"] for plot in plots)
    tables = [t for t in read.all("table") if t["attributes"].get("class") == "sortable"]
    assert shown.count('<button type="button">') > 3 * len(tables) > 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_a_screen_or_a_phone(text, tmp_path, width):
    """In a frame, as a window of headless Chromium is never narrower than 500. Only here the page
    may have one more script, which says how wide it is."""
    measure = "parent.postMessage(document.documentElement.scrollWidth, '*');"
    loose = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    loose = loose.replace("</body>", f"<script>{measure}</script></body>")
    (tmp_path / "loose.html").write_text(loose)
    (tmp_path / "frame.html").write_text(
        "<script>onmessage = (event) => { document.title = event.data; };</script>"
        f'<iframe src="loose.html" style="border: 0; width: {width}px; height: 900px"></iframe>'
    )
    shown, said = browse(tmp_path / "frame.html", tmp_path / "profile")
    assert said == []
    assert int(re.search(r"<title>(\d+)</title>", shown)[1]) <= width
