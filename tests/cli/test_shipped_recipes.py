"""Every shipped recipe for public data, on a miniature tree in the layout of the real one."""

import json
import shutil

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
    recipe = recipes.load(recipes.shipped()[name])
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


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_whose_data_is_not_there_says_where_it_belongs(cli, tiny_folder, tmp_path, name):
    outcome = cli("train", name, f"model={tiny_folder}", "--dry-run", "--data-root", tmp_path)
    assert outcome.code == 4
    assert f"No such file: {tmp_path}/{name}/dataset_{name}.json" in outcome.err
