"""base-to-novel and few-shot from the command line, on miniatures of CoOp's eleven sets."""

import csv
import json
import shutil

import coop_tree
import pytest

KINDS = ("imagenet", "fgvc_aircraft", "eurosat")
"""Sets whose split is folders, lists and a JSON file"""


@pytest.fixture(scope="session")
def coop(tmp_path_factory):
    """All eleven sets under one data root, for reading only."""
    return coop_tree.fill_all(tmp_path_factory.mktemp("coop"))


def run_of_coop(cli, tiny_folder, data_root, name, *overrides):
    """Trained for an epoch, merged and evaluated as the recipe says: the plan and the result."""
    small = [f"model={tiny_folder}", "device=cpu", "workers=0", "precision=fp32", *overrides]
    outcome = cli("train", name, "--dry-run", "--json", *small, "--data-root", data_root)
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)["plan"]
    outcome = cli("train", name, "optimisation.epochs=1", *small, "--data-root", data_root)
    assert outcome.code == 0, outcome.err
    assert cli("merge").code == 0
    outcome = cli("eval", "--json", "--data-root", data_root)
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    return plan, result


@pytest.mark.parametrize(
    "dataset",
    [
        name if name in KINDS else pytest.param(name, marks=pytest.mark.slow)
        for name in coop_tree.ALL
    ],
)
def test_base_to_novel_of_every_set(cli, tiny_folder, coop, dataset):
    plan, result = run_of_coop(
        cli, tiny_folder, coop, "base-to-novel", f"data.dataset={dataset}", "data.shots=4"
    )
    assert plan["pictures"] == 3 * 4  # of the three base classes
    assert list(result["models"]) == ["zero-shot", "alpha 0.50"]
    tuned = result["models"]["alpha 0.50"]
    assert list(tuned["datasets"]) == [f"{dataset}-base", f"{dataset}-novel"]
    assert [facts["pictures"] for facts in tuned["datasets"].values()] == (
        [6, 6] if dataset == "imagenet" else [6, 4]
    )
    template = result["models"]["zero-shot"]["datasets"][f"{dataset}-base"]["protocol"]
    assert template["protocol"].startswith("coop: ")
    # The miniature is partial beside the published counts, so it has no harmonic mean.
    assert tuned["harmonic_means"][dataset] == {"of": [f"{dataset}-base", f"{dataset}-novel"]}


def test_a_run_by_the_protocol_of_the_release(cli, tiny_folder, coop):
    """It has no published counts, so that the harmonic mean stands in the table."""
    release = ("data.dataset=stanford_cars", "data.protocol=radapter-release", "seed=3")
    _, result = run_of_coop(cli, tiny_folder, coop, "base-to-novel", *release)
    tuned = result["models"]["alpha 0.50"]
    base, novel = (facts["accuracy"]["value"] for facts in tuned["datasets"].values())
    harmonic = tuned["harmonic_means"]["stanford_cars"]["accuracy"]["value"]
    assert harmonic == pytest.approx(2 * base * novel / (base + novel) if base + novel else 0)
    assert result["protocol"]["dataset_templates"]["stanford_cars-base"] == "openai"
    assert result["seed"] == 3
    outcome = cli("eval", "--data-root", coop)
    assert outcome.code == 0, outcome.err
    assert "in-distribution: stanford_cars-base" in outcome.out
    assert "zero-shot: stanford_cars-novel" in outcome.out
    assert "harmonic mean: stanford_cars" in outcome.out
    assert (
        "All: protocol: radapter-release: folder names, `_` kept, in alphabetical order; "
        in outcome.out
    )
    assert "All: template: openai." in outcome.out


def test_few_shot_runs_side_by_side(cli, tiny_folder, coop, tmp_path):
    for seed in (1, 2):
        few = ("data.dataset=eurosat", "data.shots=2", f"seed={seed}")
        plan, result = run_of_coop(cli, tiny_folder, coop, "few-shot", *few)
        assert plan["pictures"] == 10
        assert list(result["models"]["zero-shot"]["datasets"]) == ["eurosat"]
    outcome = cli("compare", *(tmp_path / "runs").iterdir(), "--out", "seeds.csv")
    assert outcome.code == 0, outcome.err
    with open("seeds.csv", newline="") as file:
        rows = list(csv.reader(file))
    text = "\n".join(map(",".join, rows))
    assert "eurosat, all classes, 2 shots, seed 1" in text
    assert "eurosat, all classes, 2 shots, seed 2" in text
    assert "mean of seeds 1, 2" in text
    assert cli("merge", "--alpha", "auto", "--data-root", coop).code == 0


HEADED = {
    "clip-adapter": "clip-adapter",
    "tip-adapter": "tip-adapter",
    "tip-adapter-f": "tip-adapter-f",
    "linear": "tip-adapter-f",  # whose recipe it is put into
    "xmadapter": "xmadapter",
}


@pytest.mark.parametrize(
    ("head", "suite"),
    [
        ("tip-adapter", "base-to-novel"),
        *(
            pytest.param(head, suite, marks=pytest.mark.slow)
            for head in HEADED
            for suite in ("base-to-novel", "few-shot")
            if (head, suite) != ("tip-adapter", "base-to-novel")
        ),
    ],
)
def test_heads_know_base_classes_and_leave_novel_ones_to_texts(cli, tiny_folder, coop, head, suite):
    """So novel classes are scored as zero-shot, as the towers are those of the base model."""
    classes = "base" if suite == "base-to-novel" else "all"
    more = [f"suites=[{suite}]", f"data.classes={classes}", "data.dataset=eurosat", "data.shots=2"]
    more += ["head={name: linear}"] * (head == "linear") + ["optimisation.lr=0.1"]
    _, result = run_of_coop(cli, tiny_folder, coop, HEADED[head], *more)
    zero_shot, tuned = (result["models"][name]["datasets"] for name in ("zero-shot", "alpha 1.00"))
    known = f"the trained head ({head}) tells the classes apart"
    if suite == "few-shot":
        assert known in tuned["eurosat"]["remarks"]
        return
    assert known in tuned["eurosat-base"]["remarks"]
    unknown = f"texts tell the classes apart: the trained head ({head}) does not know '"
    assert any(unknown in remark for remark in tuned["eurosat-novel"]["remarks"])
    for key in ("accuracy", "calibration_error"):
        of_novel = [of["eurosat-novel"][key]["value"] for of in (zero_shot, tuned)]
        assert of_novel[1] == of_novel[0]


@pytest.mark.slow
def test_means_over_seeds_and_sets(cli, tiny_folder, coop, tmp_path):
    """Two sets, trained and scored once each; the other seed is a copy with other numbers."""
    for dataset in ("stanford_cars", "dtd"):
        release = (f"data.dataset={dataset}", "data.protocol=radapter-release")
        run_of_coop(cli, tiny_folder, coop, "base-to-novel", *release)
    values = {}
    for run in list((tmp_path / "runs").iterdir()):
        copy = shutil.copytree(run, run.with_name(f"{run.name}-2"))
        recipe = (copy / "recipe.yaml").read_text()
        assert "\nseed: 1\n" in recipe
        assert "  shots_seed: 1\n" in recipe
        recipe = recipe.replace("\nseed: 1\n", "\nseed: 2\n")
        (copy / "recipe.yaml").write_text(recipe.replace("shots_seed: 1\n", "shots_seed: 2\n"))
        for number, folder in enumerate((run, copy)):
            (path,) = (folder / "eval").glob("*.json")
            result = json.loads(path.read_text())
            roles = result["models"]["alpha 0.50"]["roles"]
            for i, role in enumerate(("in-distribution", "zero-shot")):
                value = 0.3 + 0.2 * i + 0.1 * number + 0.04 * len(values)
                values[folder.name, role] = roles[role]["accuracy"]["value"] = value
            path.write_text(json.dumps(result))
    runs = sorted((tmp_path / "runs").iterdir())
    outs = [x for ending in ("csv", "json", "md") for x in ("--out", f"means.{ending}")]
    outcome = cli("compare", *runs, *outs)
    assert outcome.code == 0, outcome.err
    assert "that of the two means, as CoCoOp and MaPLe have it" in " ".join(outcome.out.split())
    written = json.loads((tmp_path / "means.json").read_text())
    assert json.loads(cli("compare", *runs, "--json").out)["averages"] == written["averages"]
    means = {tuple(mean["sets"]) + tuple(mean["seeds"]): mean for mean in written["averages"]}
    assert len(written["averages"]) == 4  # a set, the other set, both; both zero-shot
    mean = next(mean for key, mean in means.items() if len(key) == 4)
    assert sorted(mean["average_of"]) == sorted(run.name for run in runs)
    found = {n["role"]: n for n in mean["numbers"]}
    base, novel = (
        [values[run.name, role] for run in runs] for role in ("in-distribution", "zero-shot")
    )
    assert found["in-distribution"]["value"] == pytest.approx(sum(base) / 4)
    assert found["zero-shot"]["value"] == pytest.approx(sum(novel) / 4)
    both = 2 / (4 / sum(base) + 4 / sum(novel))
    assert found["harmonic mean"]["value"] == pytest.approx(both)
    zero = next(mean for mean in written["averages"] if mean["method"] == "zero-shot")
    assert zero["average_of"] == ["zero-shot", "zero-shot"]
    with open(tmp_path / "means.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["average_of"]]
    assert {line["run"] for line in lines} == {
        "mean of seeds 1, 2", "mean of 2 sets", "mean of 2 sets, seeds 1, 2"
    }  # fmt: skip
    (line,) = [line for line in lines if line["run"] == "mean of 2 sets, seeds 1, 2"]
    column = "base-to-novel in-distribution accuracy"
    assert float(line[column]) == found["in-distribution"]["value"]
    assert float(line[f"{column} deviation"]) == found["in-distribution"]["deviation"]
    assert line[f"{column} low"] == line[f"{column} group"] == ""
    text = (tmp_path / "means.md").read_text()
    for word in ("| M4 | mean of 2 sets, seeds 1, 2 | r-adapter |", f"{100 * both:.1f}", " sd "):
        assert word in text
        assert word.strip("| ").split(" |")[0] in outcome.out


def test_all_sets_for_a_model_without_a_run(cli, tiny_folder, coop):
    few = ("eval", "--suite", "few-shot", "--model", tiny_folder, "--without", "imagenet")
    outcome = cli(*few, "--data-root", coop)
    assert outcome.code == 0, outcome.err
    assert "in-distribution: ucf101 (partial)" in outcome.out
    assert "dtd: template: '{} texture.'." in outcome.out
    assert "mean: not all is whole" in outcome.out
    halves = ("eval", "--suite", "base-to-novel", "--model", tiny_folder, "--without", "imagenet")
    outcome = cli(*halves, "--protocol", "dtd=radapter-release", "--data-root", coop)
    assert outcome.code == 0, outcome.err
    assert "mean of base: not all is whole" in outcome.out
    assert "harmonic mean: of both means" in outcome.out
    assert (
        "of both means: mean of base and mean of novel; no mean of harmonic means." in outcome.out
    )


@pytest.mark.parametrize("suite", ["few-shot", "base-to-novel"])
def test_the_suites_say_what_is_there(cli, coop, suite, tmp_path):
    coop = shutil.copytree(coop, tmp_path / "data")
    (coop / "dtd" / "split_zhou_DescribableTextures.json").unlink()
    (coop / "ucf101").rename(coop / "UCF101")
    outcome = cli("data", "check", suite, "--data-root", coop)
    assert outcome.code == 4
    assert "No such file: " in outcome.out
    assert "It is linked from https://github.com/KaiyangZhou/CoOp" in outcome.out
    assert "UCF101 is not under" in outcome.out
    assert "licence:   MIT" in outcome.out
    outcome = cli("data", "list", suite, "--data-root", coop)
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    half = "-base" if suite == "base-to-novel" else ""
    assert "partial" in lines[f"sun397{half}"]
    assert "missing" in lines[f"ucf101{half}"]
    assert "broken" in lines[f"dtd{half}"]
