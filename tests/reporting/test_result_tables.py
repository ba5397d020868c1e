"""What `radapter eval` prints: every number with what it depends on, within 80 columns."""

import copy
import re

import pytest
from tiny import printed

from radapter import models
from radapter.evaluation.cache import Cache
from radapter.evaluation.evaluate import evaluate, protocol
from radapter.evaluation.parity import compare, tolerance_of
from radapter.evaluation.suite import Suite, load_suite
from radapter.reporting import alpha_table, evaluation_tables
from radapter.runtimes.opened import from_loaded

KINDS = {"zero-shot": "zero-shot", "alpha 0.50": "tuned"}
ENGINES = ("onnx", "onnx fp16", "onnx int8")
SHARE = r"\d+\.\d ±\s?\d+\.\d"


def result_of(suite, loaded, labels=("zero-shot", "alpha 0.50", "onnx"), cache=None):
    """A result with the same model in every column, and an engine's parity with it."""
    evaluated = evaluate(suite, from_loaded(loaded), cache=cache)
    result = evaluated.result()
    verdict = compare(evaluated, evaluated, tolerance_of("fp32"))
    return {
        "suite": suite.name,
        "alpha": 0.5,
        "protocol": protocol(suite, loaded.config["preprocess_cfg"]),
        "models": {
            label: copy.deepcopy(result) | {"kind": KINDS.get(label, "engine")} for label in labels
        },
        "parity": [copy.deepcopy(verdict) | {"label": label} for label in ENGINES],
    }


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return models.load(tiny_folder)


@pytest.fixture(scope="module")
def emoji(loaded, tmp_path_factory):
    """The names and roles of the suite, all with the pictures of one style, encoded once."""
    suite = load_suite("emoji-shifts")
    noto = suite.datasets[0].data
    datasets = [dataset.model_copy(update={"data": noto}) for dataset in suite.datasets]
    cache = Cache(tmp_path_factory.mktemp("cache"), 10**8)
    return result_of(suite.model_copy(update={"datasets": datasets}), loaded, cache=cache)


def test_a_suite_without_averages_has_every_set_and_every_choice_in_80_columns(emoji, loaded):
    lines = printed(evaluation_tables(emoji))
    text = "\n".join(lines)
    rows = [line for line in lines if re.search(SHARE, line)]
    first = emoji["models"]["zero-shot"]
    for name, facts in first["datasets"].items():
        own = [row for row in rows if re.match(rf"  {facts['role']}: {name} ", row)]
        assert len(own) == 3  # a task and two ways of another, each number on one line
        assert all(len(re.findall(SHARE, row)) == 3 and row.endswith("+0.00") for row in own)
        assert f"{100 * facts['accuracy']['value']:.1f} ±" in own[0]
        error = f"{100 * facts['calibration_error']['value']:.1f}"
        assert re.search(rf"^  {name} +{error} +{error} +{error}$", text, re.MULTILINE)
    for role, count in (("unseen", 2), ("seen", 5)):
        assert sum(row.startswith(f"  {role}: mean of {count} ") for row in rows) == 3
    assert "class accuracy, % (chance 1.3)" in lines
    assert f"alpha 0.50: pytorch, cpu, fp32, {loaded.weights_hash[:16]}." in lines
    assert "Templates: '{}'." in lines
    assert f"Scored: {first['datasets']['noto']['pictures']} of each set." in lines
    assert "Published recalls count them apart: `identical_captions: apart`." in lines
    for choice in ("Head: ", "Calibration:", "Retrieval: ", "Pictures: ", "± is half"):
        assert choice in text


def test_a_score_that_is_not_above_every_trivial_row_is_named(emoji):
    """By the lower end of its interval; an answer without a look at the picture is such a row."""
    result = copy.deepcopy(emoji)
    for name, share in (("noto", 0.2), ("twemoji", 0.19)):
        item = result["models"]["zero-shot"]["datasets"][name]["accuracy"]
        item |= {"interval": [0.2, 0.4], "trivial": {"one class everywhere": share}}
    lines = printed(evaluation_tables(result))
    assert "  one class everywhere: 19.0 to 20.0" in [line.rstrip() for line in lines]
    said = [line for line in lines if "NOT above every trivial row" in line]
    wanted = "zero-shot is NOT above every trivial row by its interval: noto (class accuracy)."
    assert " ".join(lines).count("NOT above") == len(said) == 1
    assert wanted in " ".join(" ".join(lines).split())


def test_the_table_of_parity_fits_beside_it(emoji):
    wide = copy.deepcopy(emoji)
    for row in wide["parity"][2]["metrics"]:
        row |= {"difference": -0.0123, "interval": [-0.0214, -0.0011]}
    text = "\n".join(printed(evaluation_tables(wide)))
    table = text[text.index("parity with") :]
    for name in emoji["models"]["onnx"]["datasets"]:
        rows = re.findall(rf"^  {name} .* -1\.23 \[-2\.1,-0\.1\]$", table, re.MULTILINE)
        assert len(rows) == 3


# ------------------------------------------------------------------ means and partial sets


def suite_of(shapes, **more):
    data = {"source": "folder", "root": str(shapes), "split": "all"}
    names = {"own": "in-distribution", "first": "shifted", "second": "shifted", "third": "shifted"}
    published = {"pictures": 10**6, "where": "nowhere", "licence": "none", "folder": "x"}
    datasets = [{"name": name, "role": role, "data": data} for name, role in names.items()]
    datasets[-1]["published"] = published
    return Suite(name="mine", tasks=["classification"], datasets=datasets, **more)


@pytest.fixture(scope="module")
def plain(loaded, shapes):
    return result_of(suite_of(shapes), loaded, ["zero-shot"]) | {"parity": []}


@pytest.fixture(scope="module")
def averaged(loaded, shapes):
    suite = suite_of(
        shapes,
        averages={"2 shifts": ["first", "second"], "all shifts": "shifted"},
        harmonic_means={"own and 2 shifts": ["own", "2 shifts"]},
    )
    return result_of(suite, loaded, ["zero-shot"]) | {"parity": []}


def test_a_mean_says_what_it_leaves_out(plain):
    text = "\n".join(printed(evaluation_tables(plain)))
    assert re.search(rf"shifted: third \(partial\) +{SHARE}", text)
    assert re.search(rf"shifted: mean of 2 of 3 +{SHARE}", text)


def test_a_role_whose_sets_are_a_named_average_stands_there_once(averaged):
    text = "\n".join(printed(evaluation_tables(averaged)))
    assert "shifted: mean of" not in text
    assert "all shifts" in text


def over_alphas(result):
    (model,) = result["models"].values()
    points = [{"alpha": alpha} | model for alpha in (0.0, 0.5, 1.0)]
    return {key: result[key] for key in ("suite", "protocol")} | {"points": points, "chosen": 0.5}


def test_the_table_over_alpha_has_means_intervals_and_choices(averaged, loaded):
    text = "\n".join(printed([alpha_table(over_alphas(averaged))], width=100))
    header = " ".join(text.split("class accuracy")[0].split())
    for column in ("in-distribution: own", "2 shifts", "all shifts", "harmonic mean"):
        assert column in header
    (row,) = re.findall(r"^  0\.5 <-.*", text, re.MULTILINE)
    assert len(re.findall(SHARE, row)) >= 3
    model = averaged["models"]["zero-shot"]
    assert f"{100 * model['averages']['2 shifts']['accuracy']['value']:.1f} ±" in row
    mean = model["harmonic_means"]["own and 2 shifts"]["accuracy"]["value"]
    assert f"{100 * mean:.1f} ±" in row
    for line in ("Head: ", "Templates: ", "cpu, fp32", "third is partial", "± is half", "Scored: "):
        assert line in text


def test_the_table_over_alpha_marks_what_is_left_out_and_fits(plain, emoji):
    text = "\n".join(printed([alpha_table(over_alphas(plain))]))
    assert "shifted: mean of 2 of 3" in text
    emoji = emoji | {"models": {"onnx": emoji["models"]["onnx"]}}
    lines = printed([alpha_table(over_alphas(emoji))])
    rows = [line for line in lines if line.startswith("  0.5 <-")]
    assert [len(re.findall(SHARE, row)) for row in rows] == [3, 3, 3]
