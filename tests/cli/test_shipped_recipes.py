"""Every shipped recipe for public data, on a miniature tree in the layout of the real one."""

import json
import shutil
from pathlib import Path

import pytest
import trees

from radapter import recipe as recipes
from radapter.data import open_data

TREES = {"coco": trees.coco, "flickr30k": trees.flickr30k}
OTHER = {"coco": "flickr30k", "flickr30k": "coco"}


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_passes_the_dry_run_and_trains(cli, tiny_folder, tmp_path, name):
    data_root = tmp_path / "data"
    for tree in TREES:
        TREES[tree](data_root / tree)
    small = [f"model={tiny_folder}", "device=cpu", "workers=0", "--data-root", data_root]
    outcome = cli("train", name, "--dry-run", "--json", *small)
    assert outcome.code == 0, outcome.err
    recipe = recipes.load(recipes.shipped()[name], [f"data.data_root={data_root}"])
    found = open_data(recipe.data)
    plan = json.loads(outcome.out)["plan"]
    assert (plan["pictures"], plan["pairs"]) == (len(found), 5 * len(found))
    assert not (tmp_path / "runs").exists()
    outcome = cli("train", name, "optimisation.epochs=1", "optimisation.batch_size=16", *small)
    assert outcome.code == 0, outcome.err
    assert cli("merge").code == 0
    outcome = cli("eval", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert result["suite"] == "retrieval"
    datasets = result["models"]["alpha 0.80"]["datasets"]
    roles = {name: facts["role"] for name, facts in datasets.items()}
    assert roles == {name: "in-distribution", OTHER[name]: "zero-shot"}
    test = recipe.data.model_copy(update={"split": "test"})
    assert datasets[name]["pictures"] == len(open_data(test))
    # With the other set not on disk it takes the option that the message names, and no other.
    shutil.rmtree(data_root / OTHER[name])
    outcome = cli("eval")
    assert outcome.code == 4
    assert f"add --without {OTHER[name]}" in outcome.err
    outcome = cli("eval", "--without", OTHER[name])
    assert outcome.code == 0, outcome.err
    assert f"in-distribution: {name} (partial)" in outcome.out


def test_a_run_remembers_the_data_root(cli, recipe_file, shapes, tmp_path, monkeypatch):
    """Commands after `train --data-root` find its data, from any folder; the option outranks it."""
    recipe_file.write_text(recipe_file.read_text().replace(str(shapes), shapes.name))
    small = ("data.hold_out=0.3", "optimisation.epochs=1")
    monkeypatch.chdir(shapes.parent.parent)
    outcome = cli("train", recipe_file, *small, "--data-root", shapes.parent.name, "--json")
    assert outcome.code == 0, outcome.err
    run = Path(json.loads(outcome.out)["run"]).absolute()
    assert recipes.load(run / "recipe.yaml").data.data_root == str(shapes.parent)
    monkeypatch.chdir(tmp_path)
    for command in (("merge", "--alpha", "auto"), ("eval",), ("eval", "--alphas", "0:1:1")):
        outcome = cli(*command, "--run", run)
        assert outcome.code == 0, outcome.err
    (run / "adapter.safetensors").unlink()
    outcome = cli("train", "--resume", run)
    assert outcome.code == 0, outcome.err
    outcome = cli("eval", "--run", run, "--data-root", tmp_path / "empty")
    assert (outcome.code, str(tmp_path / "empty") in outcome.err) == (4, True)


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_whose_data_is_not_there_says_where_it_belongs(cli, tiny_folder, tmp_path, name):
    outcome = cli("train", name, f"model={tiny_folder}", "--dry-run", "--data-root", tmp_path)
    assert outcome.code == 4
    assert f"No such file: {tmp_path}/{name}/dataset_{name}.json" in outcome.err
