"""compare: what stands in the table, what may be ranked, and the files it writes."""

import csv
import json
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from radapter.reporting import comparison
from radapter.reporting.comparison import Number, compare_runs
from radapter.run import Run

SUITE = """\
name: mine
tasks: [classification]
templates: ["a {{}}"]
datasets:
  - {{name: own, role: in-distribution, data: {{source: folder, root: {root}, split: all}}}}
  - {{name: other, role: shifted, data: {{source: folder, root: {root}, split: all}}}}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where the results of the first evaluation are kept for the next tests."""
    return tmp_path_factory.mktemp("results") / "eval"


@pytest.fixture
def evaluated(cli, merged, shapes, tmp_path, results):
    """A run with real results on two suites, and one over alphas."""
    if results.is_dir():
        shutil.copytree(results, merged.evaluations)
        return merged
    (tmp_path / "mine.yaml").write_text(SUITE.format(root=shapes))
    for more in ([], ["--suite", "mine.yaml"], ["--suite", "mine.yaml", "--alphas", "0:1:1"]):
        outcome = cli("eval", *more)
        assert outcome.code == 0, outcome.err
    shutil.copytree(merged.evaluations, results)
    return merged


def copied(run, letter):
    """The run under another name."""
    name = f"tiny-20990101T00000{ord(letter) - ord('a')}Z-{letter * 6}"
    return Run(shutil.copytree(run.path, run.path.with_name(name)))


def change(run, suite, edit):
    """Edit the result of a suite in place."""
    (path,) = run.evaluations.glob(f"{suite}-alpha-0.50.json")
    result = json.loads(path.read_text())
    edit(result)
    path.write_text(json.dumps(result))


def score(run, suite, role, value, half):
    """Set a number of the tuned model and its interval."""

    def edit(result):
        item = result["models"]["alpha 0.50"]["roles"][role]["accuracy"]
        item |= {"value": value, "interval": [value - half, value + half]}

    change(run, suite, edit)


def test_results_of_an_earlier_version_say_by_labels_what_their_models_are(evaluated):
    before = compare_runs([evaluated])

    def forget(result):
        for model in result["models"].values():
            del model["kind"], model["alpha"]

    change(evaluated, "mine", forget)
    change(evaluated, "held-out", forget)
    assert compare_runs([evaluated]).rows == before.rows


def with_base(run, weights_hash):
    """The run as if it were of another base model."""
    with safe_open(run.adapter, "pt") as file:
        facts = json.loads(file.metadata()["radapter"])
    facts["base_hash"] = weights_hash
    save_file(load_file(run.adapter), run.adapter, metadata={"radapter": json.dumps(facts)})


def tuned(compared):
    return [row for row in compared.rows if not row.is_zero_shot]


def test_the_facts_are_those_of_the_run(cli, evaluated, shapes):
    (zero, row) = compare_runs([evaluated]).rows
    log = evaluated.metrics.read_text().splitlines()
    assert row.facts == {
        "run": evaluated.name,
        "method": "r-adapter",
        "base_model": evaluated.recipe().model,
        "base_hash": json.loads(
            (evaluated.merged() / "merged.json").read_text()
        )["base_hash"],
        "data": f"folder {shapes.name}",
        "alpha": 0.5,
        "trained_parameters": 2 * 2 * (32**2 + 16**2),  # layers, places, widths of the towers
        "stored_bytes": evaluated.adapter.stat().st_size,
        "steps": json.loads(log[-1])["step"],
        "seconds": json.loads(log[-1])["seconds"],
        "peak_memory_bytes": json.loads(log[-1])["peak_memory_bytes"],
        "memory_of": "process",
    }  # fmt: skip
    assert zero.facts["run"] is None
    assert zero.facts["base_hash"] == row.facts["base_hash"]
    for suite in ("held-out", "mine"):
        result = json.loads((evaluated.evaluations / f"{suite}-alpha-0.50.json").read_text())
        for model, label in ((zero, "zero-shot"), (row, "alpha 0.50")):
            for role, facts in result["models"][label]["roles"].items():
                number = model.numbers[suite, role, "accuracy"]
                assert number.value == facts["accuracy"]["value"]
                assert number.interval == tuple(facts["accuracy"]["interval"])
    assert set(row.numbers) == {
        ("held-out", "in-distribution", "accuracy"),
        ("mine", "in-distribution", "accuracy"),
        ("mine", "shifted", "accuracy"),
    }


def test_the_peak_of_a_resumed_run_is_the_largest_of_its_processes(evaluated):
    lines = [json.loads(line) for line in evaluated.metrics.read_text().splitlines()]
    lines[0]["peak_memory_bytes"] = 5 * 10**12

    def rows():
        evaluated.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (row,) = tuned(compare_runs([evaluated]))
        return row.facts["peak_memory_bytes"], row.facts["memory_of"]

    assert rows() == (5 * 10**12, "process")
    lines[-1] |= {"peak_memory_bytes": 7, "memory_of": "cuda"}  # resumed elsewhere
    assert rows() == (7, "cuda")
    for line in lines:
        del line["peak_memory_bytes"], line["memory_of"]  # of an earlier version
    assert rows() == (None, None)


def test_a_row_for_each_alpha(cli, evaluated):
    assert cli("merge", "--alpha", "1").code == 0
    assert cli("eval", "--runtime", "torch").code == 0
    compared = compare_runs([evaluated])
    assert [row.facts["alpha"] for row in compared.rows] == [None, 0.5, 1.0]
    assert ("mine", "shifted", "accuracy") not in compared.rows[2].numbers


def test_the_best_is_marked_only_beyond_noise(cli, evaluated):
    others = [copied(evaluated, letter) for letter in "abc"]
    runs = [evaluated, *others]
    for run, value in zip(runs, (0.50, 0.60, 0.58, 0.40), strict=True):
        score(run, "mine", "shifted", value, 0.03)  # of a difference: 0.042
        change(run, "mine", lambda r: r["models"].pop("zero-shot"))
    for run, value in zip(runs, (0.50, 0.60, 0.55, 0.40), strict=True):
        score(run, "mine", "in-distribution", value, 0.03)
    rows = tuned(compare_runs(runs))

    def marks(role):
        return [row.numbers["mine", role, "accuracy"].mark for row in rows]

    assert marks("shifted") == ["", "noise", "noise", ""]
    assert marks("in-distribution") == ["", "best", "", ""]


def test_a_lead_inside_the_interval_of_the_difference_is_noise():
    """Hand-made: each half is 3 and 4 points, so a lead has to be above 5."""
    for value, mark in ((0.549, "noise"), (0.551, "best")):
        numbers = [Number(0.5, (0.4, 0.54)), Number(value, (value - 0.03, 0.9))]
        comparison._rank(numbers)
        assert numbers[1].mark == mark
    alone = [Number(0.5, (0.4, 0.6)), Number(0.9, (0.8, 1.0), group="b"), Number(0.1, None)]
    comparison._rank(alone)
    assert [number.mark for number in alone] == ["", "", ""]  # nothing to be better than


@pytest.mark.parametrize(
    ("suite", "edit", "reason"),
    [
        (
            "mine",
            lambda r: r["protocol"].update(templates=["see {}"]),
            'another protocol: templates ["see {}"], not ["a {}"]',
        ),
        (
            "mine",
            lambda r: r["protocol"]["preprocessing"].update(resize_mode="squash"),
            "another protocol: preprocessing ",
        ),
        (
            "mine",
            lambda r: r["models"]["alpha 0.50"]["datasets"]["other"].update(fingerprint="0"),
            "other pictures or texts in other",
        ),
        (
            "mine",
            lambda r: r["models"]["alpha 0.50"]["datasets"]["other"]["protocol"].update(crop="2"),
            "another protocol of other: crop 2, not null",
        ),
        (
            "mine",
            lambda r: r["models"]["alpha 0.50"]["datasets"]["other"]["protocol"].update(
                {"equal names": "each class counts for itself"}
            ),
            "another protocol of other: equal names each class counts for itself, not one answer",
        ),
    ],
)
def test_another_protocol_or_other_data_is_marked_and_not_ranked(
    cli, evaluated, suite, edit, reason
):
    other = copied(evaluated, "b")
    change(other, suite, edit)
    for run in (evaluated, other):
        change(run, suite, lambda r: r["models"].pop("zero-shot"))
    score(evaluated, suite, "shifted", 0.5, 0.01)
    score(other, suite, "shifted", 0.9, 0.01)
    compared = compare_runs([evaluated, other])
    ours, theirs = (
        row.numbers[suite, "shifted", "accuracy"] for row in tuned(compared)
    )  # fmt: skip
    assert (ours.group, theirs.group) == ("a", "b")
    assert (ours.mark, theirs.mark) == ("", "")  # neither has another to be better than
    assert compared.reasons[suite, "shifted", "b"].startswith(reason)
    # The other suite, and what the change does not touch, is as comparable as it was.
    held_out = [row.numbers["held-out", "in-distribution", "accuracy"] for row in tuned(compared)]
    assert {number.group for number in held_out} == {"a"}
    if "datasets" in reason or "pictures" in reason:
        own = [row.numbers[suite, "in-distribution", "accuracy"] for row in tuned(compared)]
        assert {number.group for number in own} == {"a"}


def test_a_result_of_a_version_that_said_nothing_of_equal_names(cli, evaluated):
    other = copied(evaluated, "b")

    def earlier(result):
        for model in result["models"].values():
            for facts in model["datasets"].values():
                del facts["protocol"]["equal names"]

    change(other, "mine", earlier)
    assert not compare_runs([evaluated, other]).reasons


def test_another_base_model_is_ranked_among_its_own(cli, evaluated):
    others = [copied(evaluated, "b"), copied(evaluated, "c")]
    for run, value in zip(others, (0.9, 0.7), strict=True):
        with_base(run, "f" * 64)
        score(run, "mine", "shifted", value, 0.01)
    score(evaluated, "mine", "shifted", 0.95, 0.01)
    compared = compare_runs([evaluated, *others])
    numbers = {
        (row.facts["run"], row.facts["base_hash"][0]): row.numbers["mine", "shifted", "accuracy"]
        for row in compared.rows
    }
    assert numbers[others[0].name, "f"].group == numbers[None, "f"].group == "b"
    assert numbers[others[0].name, "f"].mark == numbers[evaluated.name, "5"].mark == "best"
    base = compared.rows[0].facts["base_hash"][:8]
    for suite, role in (("mine", "shifted"), ("held-out", "in-distribution")):
        assert compared.reasons[suite, role, "b"] == f"another base model (ffffffff, not {base})"


def test_zero_shot_models_that_agree_are_one(cli, evaluated):
    other = copied(evaluated, "b")
    (other.evaluations / "held-out-alpha-0.50.json").unlink()
    assert [row.is_zero_shot for row in compare_runs([other, evaluated]).rows] == [
        True, False, False
    ]  # fmt: skip
    (zero, *_) = compare_runs([other, evaluated]).rows
    assert set(zero.settings) == {"mine", "held-out"}
    change(other, "mine", lambda r: r["protocol"].update(templates=["see {}"]))
    assert sum(row.is_zero_shot for row in compare_runs([other, evaluated]).rows) == 2


def test_the_table_and_the_files(cli, evaluated, tmp_path):
    other = copied(evaluated, "b")
    change(other, "mine", lambda r: r["protocol"].update(templates=["a | b {}"]))
    outs = [x for name in ("c.csv", "c.json", "c.md") for x in ("--out", f"new/{name}")]
    outcome = cli("compare", evaluated.name, f"runs/{other.name}", evaluated.name, *outs)
    assert outcome.code == 0, outcome.err
    for word in ("mine: class accuracy, %", "r-adapter", "5,120", "(b) not comparable with (a)"):
        assert word in outcome.out
    assert "Written: new/c.md" in outcome.err
    content = json.loads((tmp_path / "new" / "c.json").read_text())
    assert content["schema_version"] == 1
    shown = json.loads(cli("compare", evaluated.name, other.name, "--json").out)
    for key in ("runs", "not_comparable", "notes"):
        assert shown[key] == content[key]
    with open(tmp_path / "new" / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["runs"]) == 4
    for row, facts in zip(rows, content["runs"], strict=True):
        for number in facts["numbers"]:
            name = f"{number['suite']} {number['role']} {number['metric']}"
            assert float(row[name]) == number["value"]
            assert [float(row[f"{name} low"]), float(row[f"{name} high"])] == number["interval"]
            assert row[f"{name} group"] == number["group"]
    lines = (tmp_path / "new" / "c.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    # What the runs are; class accuracy of one role, and of two.
    assert {line.replace("\\|", "").count("|") for line in tables} == {11, 5, 6}
    assert any(line.startswith(r"(b) not comparable with (a), mine") and r"a \| b" in line
               for line in lines)  # fmt: skip


def test_runs_without_results_or_of_an_earlier_version(cli, trained):
    tensors = load_file(trained.adapter)
    with safe_open(trained.adapter, "pt") as file:
        facts = json.loads(file.metadata()["radapter"])
    del facts["trained_parameters"]
    save_file(tensors, trained.adapter, metadata={"radapter": json.dumps(facts)})
    outcome = cli("compare", trained.name)
    assert outcome.code == 0, outcome.err
    assert f"{trained.name} has no results. Type first: radapter eval --run" in outcome.out
    assert "is of an earlier version, which did not record parameters trained" in " ".join(
        outcome.out.split()
    )


def test_bad_input(cli, evaluated, tmp_path):
    outcome = cli("compare", evaluated.name, "--out", "c.txt")
    assert (outcome.code, outcome.err) == (
        2, "error: --out takes names that end in .csv, .json or .md, found 'c.txt'.\n"
    )  # fmt: skip
    outcome = cli("compare", "nothing")
    assert (outcome.code, outcome.err) == (
        4, "error: No run at nothing. `radapter runs` lists what is there.\n"
    )  # fmt: skip
    path = evaluated.evaluations / "mine-alpha-0.50.json"
    path.write_text(path.read_text()[:-20])
    outcome = cli("compare", evaluated.name, "--out", "c.md")
    assert (outcome.code, outcome.err) == (
        4,
        f"error: {path.relative_to(tmp_path)} is damaged: remove it and evaluate again.\n",
    )
    assert not (tmp_path / "c.md").exists()
    evaluated.adapter.unlink()
    outcome = cli("compare", evaluated.name)
    assert outcome.code == 4
    assert f"Run {evaluated.name} has not finished training." in outcome.err
