"""The numbers of a study's table, against NumPy written out and by hand; the table itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from radapter.errors import BrokenInput
from radapter.evaluation import intervals
from radapter.reporting import study_tables
from radapter.study.results import Folder, counts_of, numbers_of
from radapter.study.table import columns_of, read_methods, resampled, summarise

EXAMPLE = Path(__file__).with_name("example")


@pytest.fixture
def example(tmp_path) -> Folder:
    return Folder(shutil.copytree(EXAMPLE, tmp_path / "example"))


def right(folder, run, name, alpha):
    """Hits of each cluster, straight from the file."""
    suite = json.loads((folder.path / f"{run}.json").read_text())["suites"]
    own = suite["shapes-shifts"]
    counts = own["datasets"][name]["metrics"]["accuracy"]["right"][own["alphas"].index(alpha)]
    return np.array([int(digit) for digit in counts])


def test_means_deviations_and_intervals(example):
    """Two methods with two seeds, three sets over the same four classes of six pictures."""
    summary = summarise(example)
    runs = [f"r-adapter-seed{seed}-{'2' * 11}{seed}" for seed in (0, 1)]
    ours = {
        name: np.stack([right(example, run, name, 0.5) for run in runs])
        for name in ("sharp", "blurred", "grey")
    }
    theirs = {name: right(example, "zero-shot-seed0-" + 12 * "0", name, 0.0) for name in ours}
    places = {"sharp": ["sharp"], "shifts": ["blurred", "grey"], "blurred": ["blurred"]}
    names = [column["place"] for column in summary["columns"]]
    assert names == ["sharp", "shifts", "blurred", "grey"]  # the average of all that are shifted
    (method,) = [own for own in summary["methods"] if own["label"] == "R-Adapter"]
    generator = np.random.default_rng(intervals.SEED)
    size = intervals.TRAINING_RESAMPLES
    normal = generator.standard_normal((size, 2))
    t = normal / np.sqrt(generator.chisquare(1, (size, 1)))  # of 1 degree of freedom
    seeds = 1 + (t - t.mean(axis=1, keepdims=True)) * 2 / np.sqrt(2 * 1)
    blocks = [generator.multinomial(4, [0.25] * 4, size=100) for _ in range(size // 100)]
    classes = np.concatenate(blocks)
    for place, sets in places.items():
        value = method["values"][names.index(place)]
        apart = method["differences"][names.index(place)]
        by_seed = np.mean([ours[name].sum(axis=1) / 24 for name in sets], axis=0)
        base = np.mean([theirs[name].sum() / 24 for name in sets])
        assert value["by_run"] == pytest.approx(by_seed)
        assert value["mean"] == pytest.approx(by_seed.mean())
        assert value["deviation"] == pytest.approx(abs(by_seed[0] - by_seed[1]) / 2**0.5)
        assert apart["mean"] == pytest.approx(by_seed.mean() - base)
        drawn = []
        for of_seeds, of_classes in zip(seeds, classes, strict=True):
            mean = 0.0
            for name in sets:
                share = (ours[name] - theirs[name]) @ of_classes / (6 * of_classes.sum())
                mean += share @ of_seeds / 2 / len(sets)
            drawn.append(mean)
        assert apart["interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
        other = min(np.mean(np.array(drawn) <= 1e-12), np.mean(np.array(drawn) >= -1e-12))
        assert apart["p"] == pytest.approx(min(1, 2 * other), abs=3e-4)
        assert apart["shown"] == (apart["interval"][0] > 0 or apart["interval"][1] < 0)


def test_what_a_method_scores_above_its_control(example):
    """Paired: the same seeds, classes and draws, of a set and of NAME-... with the role control."""
    for path in example.path.glob("*seed*.json"):
        tree = json.loads(path.read_text())
        for own in tree["suites"].values():
            control = own["datasets"].pop("grey") | {"role": "control"}
            own["datasets"]["sharp-grey"] = control
        path.write_text(json.dumps(tree))
    summary = summarise(example)
    names = [column["place"] for column in summary["columns"]]
    (method,) = [own for own in summary["methods"] if own["label"] == "R-Adapter"]
    (found,) = method["controls"]
    assert [names[found[key]] for key in ("column", "control")] == ["sharp", "sharp-grey"]
    tree = [example.read_run(f"r-adapter-seed{seed}-{'2' * 11}{seed}") for seed in (0, 1)]
    apart = []
    for run in tree:
        own = run["suites"]["shapes-shifts"]
        right = [
            numbers_of(own["datasets"][n]["metrics"]["accuracy"]["right"][own["alphas"].index(0.5)])
            for n in ("sharp", "sharp-grey")
        ]
        apart.append((np.array(right[0]) - np.array(right[1])) / 6)
    apart = np.array(apart)  # [seeds, classes]
    assert found["mean"] == pytest.approx(apart.mean())
    # Both sources of variance, seeds by Student's t of one degree of freedom.
    generator = np.random.default_rng(5)
    size = 100_000
    classes = generator.multinomial(4, [0.25] * 4, size=size) / 4
    by_seed = classes @ apart.T
    spread = np.abs(by_seed[:, 0] - by_seed[:, 1]) / 2  # the standard error of their mean
    drawn = by_seed.mean(axis=1) + spread * generator.standard_t(1, size)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["interval"] == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found["error"] == pytest.approx((high - low) / 3.92, rel=0.1)
    (table,) = [t for t in study_tables.tables(summary) if study_tables.ABOVE in (t.title or "")]
    errors = f", {found['mean'] / found['error']:.1f} se"
    shown = {cells[0]: cells[1] for cells, _ in table.rows}
    assert shown["R-Adapter"].endswith(errors)
    assert "| above sharp-grey |" in study_tables.to_markdown(summary)


def test_without_controls_there_is_no_such_table(example):
    summary = summarise(example)
    assert all(method["controls"] == [] for method in summary["methods"])
    assert not [t for t in study_tables.tables(summary) if study_tables.ABOVE in (t.title or "")]


def test_the_interval_has_the_spread_of_seeds_and_of_classes():
    """Two sources of variance add up: sigma_seeds^2 / seeds + sigma_classes^2 / classes."""
    generator = np.random.default_rng(1)
    seeds, classes = 40, 200
    of_seed = generator.normal(0, 0.02, size=(seeds, 1))
    of_class = generator.normal(0, 0.2, size=(1, classes))
    ours = 0.5 + of_seed + of_class
    sums = np.stack([ours, np.full_like(ours, 0.5)])
    (drawn,) = intervals.over_trainings([sums], [np.ones((seeds, classes))], [0])
    low, high = intervals.interval_of(drawn[:, 0] - drawn[:, 1])
    error = (of_seed.var() / seeds + of_class.var() / classes) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.parametrize(("seeds", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776)])
def test_where_seeds_alone_vary_the_interval_is_of_a_t_test(seeds, quantile):
    of_seed = np.random.default_rng(seeds).normal(0.5, 0.1, size=(1, seeds, 1))
    sums = np.broadcast_to(of_seed, (1, seeds, 7))
    (drawn,) = intervals.over_trainings([sums], [np.ones((seeds, 7))], [0])
    error = of_seed.std(ddof=1) / seeds**0.5
    low, high = intervals.interval_of(drawn[:, 0])
    wanted = [of_seed.mean() - quantile * error, of_seed.mean() + quantile * error]
    assert [low, high] == pytest.approx(wanted, abs=0.1 * quantile * error)
    # Five seeds that all say the same are no proof: a sign test gives 2 / 2^5.
    assert intervals.p_value(drawn[:, 0] - of_seed.min()) > 0.01


def test_one_training_is_resampled_in_its_clusters_alone():
    sums = np.array([[[1.0, 0.0]]])
    (drawn,) = intervals.over_trainings([sums], [np.ones((1, 2))], [0])
    assert set(np.unique(drawn)) == {0.0, 0.5, 1.0}


def test_a_training_whose_classes_are_not_drawn_has_no_part_in_the_mean():
    sums = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    counts = np.array([[1.0, 0.0], [0.0, 1.0]])
    (drawn,) = intervals.over_trainings([sums], [counts], [0])
    assert np.unique(drawn).tolist() == [1.0]


def test_sets_that_share_a_part_of_their_classes_are_drawn_together(example):
    """A class that one style lacks does not make the others count as other classes."""
    methods = read_methods(example, example.read_study())[0]
    columns = columns_of(methods, ["shapes-shifts"], ["accuracy"])[0]
    (column,) = [c for c in columns if c.place == "shifts"]
    for result in methods[0].results:
        suite = result["suites"]["shapes-shifts"]
        suite["clusters"] = [[0, 1, 2, 3], [0, 1, 2, 9]]
        for place, (name, hits) in enumerate({"blurred": "6063", "grey": "0603"}.items()):
            own = suite["datasets"][name]["metrics"]["accuracy"]
            own |= {"clusters": place, "right": [hits] * len(own["right"])}
    # What one style has right the other has wrong: drawn apart, the interval is 0.5 wide or more.
    assert np.ptp(intervals.interval_of(resampled(methods[:1], column)[:, 0])) < 0.25


def test_holm_by_hand():
    # 0.05 / 4 = 0.0125, / 3 = 0.0167, / 2 = 0.025, / 1 = 0.05
    assert intervals.holm([0.04, 0.012, 0.02, 0.013]) == [True, True, True, True]
    assert intervals.holm([0.04, 0.012, 0.03, 0.013]) == [False, True, False, True]
    assert intervals.holm([0.013, 0.9, 0.9, 0.9]) == [False] * 4  # Bonferroni's is the first
    assert intervals.holm([]) == []


def test_a_difference_whose_interval_holds_0_is_not_ranked(example):
    one, other = (f"full-seed{seed}-11111111111{seed}" for seed in (0, 1))
    same = {"suites": example.read_run(one)["suites"]}  # two seeds that differ show nothing
    example.write_run(other, example.read_run(other) | same)
    summary = summarise(example)
    differences = [d for m in summary["methods"] for d in m["differences"] or ()]
    assert summary["comparisons"] == len(differences) == 8
    assert {d["shown"] for d in differences} == {True, False}
    text = study_tables.to_markdown(summary)
    for entry in differences:
        low, high = entry["interval"]
        assert entry["shown"] == (low > 0 or high < 0)
        assert not (entry["holm"] and not entry["shown"])
    assert text.count(" \\~ |") == sum(not d["shown"] for d in differences)
    assert text.count("]\\* |") == sum(d["holm"] for d in differences)
    assert "for the 8 comparisons made" in text


def test_fewer_comparisons_are_corrected_for_less(example):
    outline = example.read_study()
    # A role is the mean of its data sets, or its only one.
    outline["study"]["compare"] = ["shifted", "in-distribution"]
    example.write_study({k: v for k, v in outline.items() if k != "schema_version"})
    summary = summarise(example)
    assert summary["comparisons"] == 4
    counted = [d["holm"] is not None for d in summary["methods"][2]["differences"]]
    assert counted == [True, True, False, False]


def test_what_looks_at_no_picture_stands_below_the_scores(example):
    """A mean over data sets has a row where each of them has one."""
    for path in sorted(example.path.glob("*-seed*.json")):
        content = example.read_run(path.stem)
        for suite in content["suites"].values():  # a trial has none
            for name, share in (("blurred", 0.3), ("grey", 0.9)):
                metric = suite["datasets"][name]["metrics"]["accuracy"]
                metric["trivial"] = {"one class everywhere": share}
        example.write_run(path.stem, content)
    summary = summarise(example)
    places = [column["place"] for column in summary["columns"]]
    assert places == ["sharp", "shifts", "blurred", "grey"]
    chance, one_class = summary["trivial"]
    assert chance == {"label": "chance", "values": [0.25] * 4}
    assert one_class["label"] == "one class everywhere"
    assert one_class["values"] == [None, pytest.approx(0.6), 0.3, 0.9]
    text = study_tables.to_markdown(summary)
    assert "| chance | 25.0 | 25.0 | 25.0 | 25.0 |" in text
    assert "| one class everywhere | - | 60.0 | 30.0 | 90.0 |" in text
    for method in summary["methods"]:
        bars = [max(own for own in pair if own is not None)
                for pair in zip(chance["values"], one_class["values"], strict=True)]  # fmt: skip
        below = [f"{place} (class accuracy)" for place, value, bar
                 in zip(places, method["values"], bars, strict=True)
                 if value["interval"][0] <= bar]  # fmt: skip
        assert below  # of grey at least
        said = f"{method['label']} is not above every trivial row by its interval in "
        assert f"{said}{', '.join(below)}." in summary["notes"]


def test_a_row_shows_another_measure_of_its_model(example):
    """The zero-shot model has no measure by the table's name, and a row by another of its own."""
    name = "zero-shot-seed0-" + 12 * "0"
    content = example.read_run(name)
    for facts in content["suites"]["shapes-shifts"]["datasets"].values():
        facts["metrics"] = {"top5_accuracy": facts["metrics"].pop("accuracy")}
    before = summarise(example)
    example.write_run(name, content)
    with pytest.raises(BrokenInput, match="has a number of the metric that it compares"):
        summarise(example)
    outline = example.read_study()
    outline["methods"]["zero-shot"]["shows"] = {"accuracy": "top5_accuracy"}
    example.write_study({k: v for k, v in outline.items() if k != "schema_version"})
    assert summarise(example) == before


def test_methods_that_lack_runs_are_named_and_left_out(example):
    example.run("full-seed1-" + 12 * "1").unlink()
    summary = summarise(example)
    assert [m["label"] for m in summary["methods"]] == ["zero-shot", "R-Adapter"]
    assert summary["incomplete"] == [{"label": "full", "done": 1, "of": 2}]
    assert "full is not in the table: 1 of 2 runs are there." in summary["notes"]


def test_runs_that_saw_other_pictures_are_not_compared(example):
    name = "full-seed1-" + 12 * "1"
    content = example.read_run(name)
    content["suites"]["shapes-shifts"]["datasets"]["grey"]["fingerprint"] = "other"
    example.write_run(name, content)
    with pytest.raises(BrokenInput, match="other pictures or texts of grey"):
        summarise(example)


def test_a_damaged_result_is_named(example):
    path = example.run("full-seed1-" + 12 * "1")
    path.write_text(path.read_text()[:100])
    with pytest.raises(BrokenInput, match=f"{path.name} is damaged"):
        summarise(example)


def test_tables_of_committed_results_are_those_that_were_printed(small, cli):
    printed = cli("study", "small.yaml")
    assert printed.code == 0, printed.err
    kept = {p.name: p.read_text() for p in small.folder.path.glob("table.*")}
    assert set(kept) == {"table.json", "table.md"}
    shutil.rmtree("runs")  # nothing but JSON is left
    again = cli("study", "small.yaml", "--tables", "--out", "t.json", "--out", "t.md")
    assert again.out == printed.out
    assert kept == {"table.json": Path("t.json").read_text(), "table.md": Path("t.md").read_text()}
    assert cli("study", "small.yaml").out == printed.out
    # The page is the one that the results give.
    assert cli("report", str(small.folder.path), "--out", "r.html").code == 0
    assert Path("r.html").read_text() == small.folder.report.read_text()
    # Differences may be from another method, if it is one.
    other = cli("study", "small.yaml", "--tables", "--baseline", "full")
    assert "difference from full" in other.out
    assert "difference from zero-shot" not in other.out
    unknown = cli("study", "small.yaml", "--tables", "--baseline", "ful")
    assert (unknown.code, "not one of the methods. Did you mean 'full'" in unknown.err) == (2, True)
    assert cli("study", "small.yaml", "--baseline", "full").code == 2
    # A study file that says something else now is not what the table is of.
    assert "has changed" not in again.err
    small.write(baseline="full")
    assert (
        "The study file has changed since it was run" in cli("study", "small.yaml", "--tables").err
    )


def test_counts_are_read_as_they_were_written():
    for values in ([0, 1, 9], [0, 10, 3], [0.25, 1.0, 0.5], [-1, 2]):
        assert numbers_of(counts_of(np.array(values, float))).tolist() == values
    assert counts_of(np.array([1.0, 0.0])) == "10"


def test_a_dry_run_counts_and_says_how_it_knows(small, cli):
    first = cli("study", "small.yaml", "--dry-run")
    assert "3 methods. Trials: 2 runs, 2 of them missing." in first.out
    assert "Finalists: 3 runs, 3 missing. To train: 3 runs." in first.out
    assert "by a timing of 1 kind of training, 3 steps each" in first.out
    assert small.done == []
    small.run()
    after = cli("study", "small.yaml", "--dry-run")
    assert "0 of them missing" in after.out
    assert "To train: 0 runs" in after.out
    count = len(trained_of(small.folder))  # both rates, and the second seed of each that is chosen
    assert f"by the {count} finished runs of this study" in after.out
    runs = [json.loads(path.read_text()) for path in trained_of(small.folder)]
    for path, run in zip(trained_of(small.folder), runs, strict=True):  # as a kill would leave them
        path.write_text(json.dumps(run | {"cost": run["cost"] | {"scoring_seconds": None}}))
    assert "by a timing of" in cli("study", "small.yaml", "--dry-run").out
    path.write_text(json.dumps(run))
    assert "by the 1 finished runs" in cli("study", "small.yaml", "--dry-run").out


def trained_of(folder):
    """Results of runs that were trained."""
    return sorted(folder.path.glob("full-*.json"))
