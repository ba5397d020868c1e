"""The files of weights around the pre-training of the built-in model."""

import importlib
from pathlib import Path

import pytest
import torch
import trees

from radapter import merging, models
from radapter import recipe as recipes
from radapter.models.loading import BUILT_IN
from radapter.training import train

PLACE = Path(__file__).parents[2] / "recipes" / "pretrain"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(PLACE))
    return importlib.import_module("pictogram_clip")


def weights(name):
    return models.load(str(name)).model.state_dict()


def test_it_starts_from_random_weights_and_drops_patches_in_training_alone(script, tmp_path):
    script.start(tmp_path / "base-0", 0.5)
    found, random = models.load(tmp_path / "base-0"), weights(f"{BUILT_IN}:random")
    assert all(
        torch.equal(value, random[key]) for key, value in weights(tmp_path / "base-0").items()
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        dropped = [found.model.train().encode_image(images) for _ in range(2)]
        whole = [found.model.eval().encode_image(images) for _ in range(2)]
    assert not torch.equal(*dropped)
    assert torch.equal(*whole)


def test_it_goes_on_with_the_model_that_ships(script, tmp_path):
    script.go_on(BUILT_IN, tmp_path / "base-1", 0.5)
    known = weights(BUILT_IN)
    assert all(
        torch.equal(value, known[key]) for key, value in weights(tmp_path / "base-1").items()
    )


@pytest.mark.slow
def test_a_phase_ends_in_a_model_that_the_next_goes_on_with_and_one_that_ships(script, tmp_path):
    script.start(tmp_path / "base-0")
    trees.drawings(tmp_path / "drawings")
    changes = [
        f"model={tmp_path / 'base-0'}", f"data.path={tmp_path / 'drawings'}",
        "data.held_out_families=[ink]", "optimisation.epochs=1", "optimisation.batch_size=4",
        "monitor={}", "precision=fp32",
    ]  # fmt: skip
    recipe = recipes.load(PLACE / "pictogram-clip.yaml", changes)
    run = train(recipe, tmp_path / "runs")
    merged = merging.merge(run, 1.0)
    script.go_on(str(run.path), tmp_path / "base-1")
    assert all(
        torch.equal(value, merged[key]) for key, value in weights(tmp_path / "base-1").items()
    )
    script.pack(run.path, tmp_path / "packed")
    packed, seen = weights(tmp_path / "packed"), script.tokens_of(run)
    table = "token_embedding.weight"
    assert 0 < len(seen) < 100
    assert torch.equal(packed[table].any(dim=1).nonzero().flatten(), seen)
    for key, value in packed.items():
        expected = merged[key].half().float() if value.is_floating_point() else merged[key]
        if key == table:
            value, expected = value[seen], expected[seen]
        assert torch.equal(value, expected), key
