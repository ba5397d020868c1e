"""A suite of picture retrieval from its file to tables, results and `compare`."""

import json

import pytest
import tiny
import trees

from radapter.training import train


@pytest.fixture
def suite_file(tmp_path):
    """Sketches look for photos; class folders of one set have names of pictures of the other."""
    for number, (domain, name) in enumerate(
        (domain, name) for domain in ("photos", "sketches") for name in ("cat", "dog") * 3
    ):
        trees.jpeg(tmp_path / "data" / domain / name / f"{number % 6}.jpg", number)
    data = {name: {"source": "folder", "root": name, "split": "all"} for name in trees_of(tmp_path)}
    both = {"name": "ucdr", "role": "zero-shot", "data": data["sketches"]}
    own = {"name": "among-themselves", "role": "shifted", "data": data["photos"]}
    suite = {"name": "mine", "tasks": ["picture-retrieval"], "seen": {"other": "all"},
             "datasets": [both | {"gallery": {"data": [data["photos"]]}}, own]}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(suite))
    return path


def trees_of(root):
    return sorted(path.name for path in (root / "data").iterdir())


def test_a_model_stands_beside_raw_pixels(cli, suite_file, tiny_folder, tmp_path):
    more = ("--data-root", tmp_path / "data", "--model", tiny_folder, "--out", tmp_path / "r.json")
    outcome = cli("eval", "--suite", suite_file, *more)
    assert outcome.code == 0, outcome.err
    assert "raw pixels" in outcome.out.splitlines()[1]
    assert f"Pre-training of {tiny_folder}: what it saw of these data sets is not known." in (
        outcome.out
    )
    assert "Queries in a gallery: ucdr 6 in 6, among-themselves 6 in 6." in outcome.out
    result = json.loads((tmp_path / "r.json").read_text())
    assert [model["kind"] for model in result["models"].values()] == ["model", "trivial"]
    for model in result["models"].values():
        facts = model["datasets"]["ucdr"]
        assert (facts["pictures"], facts["queries"], facts["gallery"]) == (12, 6, 6)
        assert facts["precision_10"]["value"] == 0.5  # half of the gallery is right
        assert facts["precision_10"]["chance"] == pytest.approx(0.5)
        assert model["datasets"]["among-themselves"]["precision_10"]["value"] == pytest.approx(0.4)


def test_a_run_is_compared_with_both(cli, suite_file, merged, tmp_path):
    data = ("--data-root", tmp_path / "data")
    outcome = cli("eval", "--suite", suite_file, "--runtime", "torch", *data)
    assert outcome.code == 0, outcome.err
    outcome = cli("compare", merged.path, "--json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)["runs"]
    assert [row["method"] for row in rows] == ["zero-shot", "raw pixels", "r-adapter"]
    assert all({"map", "precision_10"} <= {n["metric"] for n in row["numbers"]} for row in rows)


def test_what_is_not_there_is_said(cli, suite_file, tiny_folder, tmp_path):
    data = tmp_path / "data"
    (data / "photos" / "cat" / "0.jpg").write_bytes(b"no picture")
    more = ("--data-root", data, "--model", tiny_folder)
    outcome = cli("eval", "--suite", suite_file, *more)
    assert outcome.code == 4
    assert "cat/0.jpg" in outcome.err
    (data / "photos").rename(data / "pictures")
    outcome = cli("data", "check", suite_file, "--data-root", data)
    assert outcome.code == 4
    assert "No such folder" in outcome.out + outcome.err


@pytest.mark.slow
def test_a_recipe_that_names_the_suite_ends_in_a_verified_bundle(
    cli, suite_file, tiny_folder, shapes, tmp_path, monkeypatch
):
    monkeypatch.setenv("RADAPTER_DATA", str(tmp_path / "data"))
    recipe = tiny.recipe(tiny_folder, shapes, f"suites=['{suite_file}']")
    train(recipe, tmp_path / "runs")
    for command in (["merge"], ["export"], ["eval"]):
        outcome = cli(*command)
        assert outcome.code == 0, outcome.err
    (path,) = (tmp_path / "runs").glob("*/bundles/*/manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["verified"]
    (compared,) = manifest["parity"]
    assert compared["suite"] == "mine"
    assert {row["metric"] for row in compared["verdicts"][0]["metrics"]} >= {"map", "precision_10"}
