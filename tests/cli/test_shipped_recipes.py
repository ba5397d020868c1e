"""Every shipped recipe for public data, on a miniature tree in the layout of the real one."""

import json

import pytest
import trees

from radapter import recipe as recipes
from radapter.data import open_data

TREES = {"coco": trees.coco, "flickr30k": trees.flickr30k}


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_passes_the_dry_run_and_trains(cli, tiny_folder, tmp_path, name):
    data_root = tmp_path / "data"
    TREES[name](data_root / name)
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
    held_out = result["models"]["alpha 0.80"]["datasets"]["held-out"]
    assert held_out["pictures"] == len(open_data(recipe.validation_data()))


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_whose_data_is_not_there_says_where_it_belongs(cli, tiny_folder, tmp_path, name):
    outcome = cli("train", name, f"model={tiny_folder}", "--dry-run", "--data-root", tmp_path)
    assert outcome.code == 4
    assert f"No such file: {tmp_path}/{name}/dataset_{name}.json" in outcome.err
