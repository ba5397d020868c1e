import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from radapter import merging, models
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import alphas
from radapter.evaluation.result import SetResult
from radapter.files import radapter_facts
from radapter.run import Run
from radapter.training import train


@pytest.fixture(scope="module")
def run(tiny_folder, shapes, tmp_path_factory):
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3")
    return train(recipe, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def own_run(run, tmp_path):
    """A copy to write into."""
    return Run(shutil.copytree(run.path, tmp_path / run.name))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_alpha_0_is_the_base_bit_for_bit(run, tiny_folder):
    base = models.load(tiny_folder).model.state_dict()
    assert same(merging.merge(run, 0.0), base)
    assert not same(merging.merge(run.path, 0.5), base)


def test_every_alpha_is_on_the_line_between_the_ends(run):
    zero, one = merging.merge(run, 0.0), merging.merge(run, 1.0)
    third = merging.merge(run, 0.3)
    for name in zero:
        torch.testing.assert_close(
            third[name], 0.7 * zero[name] + 0.3 * one[name], atol=1e-6, rtol=1e-5
        )


def test_beyond_1_it_warns_and_works(run):
    with pytest.warns(UserWarning, match="extrapolates"):
        beyond = merging.merge(run, 1.5)
    zero, one = merging.merge(run, 0.0), merging.merge(run, 1.0)
    name = "visual.transformer.resblocks.0.mlp.c_proj.weight"
    expected = 1.5 * one[name] - 0.5 * zero[name]
    torch.testing.assert_close(beyond[name], expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(UsageError, match="finite"):
        merging.merge(run, float("nan"))


def test_written_folder_is_open_clips_and_gives_the_merged_features(own_run):
    folder, written = merging.write_merged(own_run, 0.5)
    assert written
    assert folder.name == "alpha-0.50"
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["merged.json", "open_clip_config.json", "open_clip_model.safetensors"]
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    state = merging.merge(own_run, 0.5)
    assert same(model.state_dict(), state)
    base = merging.open_trained(own_run).base
    images, tokens = tiny.batch(base)
    base.model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(
            tiny.features(model.eval(), images, tokens), tiny.features(base.model, images, tokens)
        )
    loaded, facts = merging.read_merged(own_run)
    assert facts["alpha"] == 0.5
    assert facts["weights_hash"] == loaded.weights_hash == models.weights_hash(state)
    size = sum(p.numel() for p in model.parameters())
    assert size == sum(t.numel() for t in state.values())


def test_merging_again_is_up_to_date_and_a_damaged_folder_is_replaced(own_run):
    folder, _ = merging.write_merged(own_run, 0.5)
    before = (folder / "open_clip_model.safetensors").stat().st_mtime_ns
    assert merging.write_merged(own_run, 0.5) == (folder, False)
    assert (folder / "open_clip_model.safetensors").stat().st_mtime_ns == before
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BrokenInput, match="damaged or truncated"):
        merging.read_merged(own_run)
    assert merging.write_merged(own_run, 0.5) == (folder, True)
    merging.read_merged(own_run)
    assert not list(folder.parent.glob(".*"))


def test_the_pointer_follows_the_last_merge(own_run):
    merging.write_merged(own_run, 0.5)
    folder, _ = merging.write_merged(own_run, 0.25)
    assert own_run.merged() == folder
    assert (folder.parent / "alpha-0.50").is_dir()


def test_changed_merged_weights_are_noticed(own_run):
    folder, _ = merging.write_merged(own_run, 0.5)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    tensors["ln_final.bias"][0] += 1
    save_file(tensors, weights)
    with pytest.raises(BrokenInput, match="merge again"):
        merging.read_merged(own_run)


def test_another_base_is_refused(own_run, tiny_folder, tmp_path):
    other = tiny.write(tmp_path / "other", seed=1)
    facts = adapter_facts(own_run) | {"base_model": str(other)}
    save_file(load_file(own_run.adapter), own_run.adapter, metadata={"radapter": json.dumps(facts)})
    with pytest.raises(BrokenInput, match="another base model"):
        merging.merge(own_run, 0.5)


def test_the_base_is_used_as_it_was_in_training(own_run, tmp_path):
    """Of a bare file nothing else says how; adapters from before do not say it either."""
    config = {"embed_dim": 16, "vision_cfg": tiny.VISION, "text_cfg": tiny.TEXT}
    (tmp_path / "tiny-merging.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    facts = adapter_facts(own_run)
    assert facts["base_used_with"] == models.load(facts["base_model"]).used_with
    file = Path(facts["base_model"]) / "open_clip_model.safetensors"
    facts |= {"base_model": f"tiny-merging:{file}"}
    tensors = load_file(own_run.adapter)
    save_file(tensors, own_run.adapter, metadata={"radapter": json.dumps(facts)})
    assert merging.open_trained(own_run).base.used_with == facts["base_used_with"]
    del facts["base_used_with"]
    save_file(tensors, own_run.adapter, metadata={"radapter": json.dumps(facts)})
    before = merging.open_trained(own_run).base.used_with
    assert before["mean"] == list(open_clip.OPENAI_DATASET_MEAN)
    assert before["quick_gelu"] is False


def adapter_facts(run):
    return radapter_facts(run.adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "has schema version 2; this radapter reads up to 1. Upgrade"),
        ({"method": {"name": "newest"}}, "has the method newest, which this radapter does not"),
        (
            {"method": {"name": "uniadapter", "shape": "round"}},
            "was trained with uniadapter's setting shape, which this radapter does not know",
        ),
    ],
)
def test_an_adapter_of_a_newer_radapter_is_refused(own_run, change, message):
    facts = adapter_facts(own_run) | change
    save_file(load_file(own_run.adapter), own_run.adapter, metadata={"radapter": json.dumps(facts)})
    with pytest.raises(BrokenInput) as caught:
        merging.open_trained(own_run)
    assert message in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "no metadata"])
def test_a_damaged_adapter_is_refused(own_run, damage):
    whole = own_run.adapter.read_bytes()
    if damage == "truncated":
        own_run.adapter.write_bytes(whole[: len(whole) // 2])
    elif damage == "pickle":
        torch.save({"a": torch.zeros(2)}, own_run.adapter)
    else:
        save_file(load_file(own_run.adapter), own_run.adapter)
    expected = {"truncated": "truncated", "pickle": "pickle", "no metadata": "not an adapter"}
    with pytest.raises(BrokenInput, match=expected[damage]):
        merging.merge(own_run, 0.5)


def hits(*missed):
    """100 items, those in the ranges missed."""
    scores = np.ones(100, dtype=bool)
    for first, last in missed:
        scores[first:last] = False
    return scores


def test_auto_takes_the_smallest_alpha_within_one_standard_error(run, monkeypatch):
    # The best, 0.6, misses 40. At 0.3 those and two more: 0.02 behind, error 0.014. At 0.4
    # two that the best misses are hit and four that it hits are missed: as far behind, less surely.
    # Errors of the scores alone, 0.05, would let 0.3 through.
    missed = [[(0, 100)]] * 3 + [[(0, 42)], [(2, 44)], [(0, 41)], [(0, 40)]] + [[(0, 45)]] * 4
    asked = []

    class Scored:
        def __init__(self, scores):
            self.scores, self.clusters = scores, np.arange(100)

    def fake(suite, models, **settings):
        found = []
        for _ in models:
            asked.append(suite)
            found.append(type("E", (), {})())
            scored = Scored(hits(*missed[len(asked) - 1]))
            held_out = SetResult([], {}, metrics={"accuracy": scored})
            found[-1].sets = {"held-out": held_out}
        return found

    monkeypatch.setattr(alphas, "evaluate_together", fake)
    choice = alphas.choose_alpha(run.recipe(), merging.open_trained(run))
    point = {p["alpha"]: p for p in choice["curve"]}
    assert point[0.3]["behind"] == pytest.approx(0.02)
    assert point[0.3]["standard_error"] == pytest.approx(np.sqrt(0.02 * 0.98 / 99))
    assert point[0.4]["behind"] == pytest.approx(0.02)
    assert point[0.4]["standard_error"] == pytest.approx(np.sqrt((0.06 - 0.02**2) / 99))
    assert point[0.6]["behind"] == point[0.6]["standard_error"] == 0
    assert choice["alpha"] == 0.4
    assert [p["alpha"] for p in choice["curve"]] == [i / 10 for i in range(11)]
    data = asked[0].datasets[0].data
    assert data.split == "validation"


def test_auto_scores_held_out_pictures_of_the_training_distribution(run):
    choice = alphas.choose_alpha(run.recipe(), merging.open_trained(run))
    from radapter.data import open_data

    held_out = open_data(run.recipe().validation_data())
    assert choice["items"] == len(held_out) > 0
    assert not set(held_out.keys) & set(open_data(run.recipe().data).keys)


def test_auto_without_held_out_data_says_what_to_set(run, tiny_folder, shapes):
    recipe = tiny.recipe(tiny_folder, shapes)
    with pytest.raises(UsageError, match=r"data.hold_out"):
        alphas.choose_alpha(recipe, merging.open_trained(run))


def test_full_fine_tuning_merges_to_interpolated_weights(tiny_folder, shapes, tmp_path):
    recipe = tiny.recipe(tiny_folder, shapes).model_dump()
    recipe["method"] = {"name": "full"}
    from radapter.recipe import Recipe

    run = train(Recipe.model_validate(recipe), tmp_path)
    base, tuned = merging.merge(run, 0), merging.merge(run, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = merging.merge(run, 0.5)
    moved = 0
    for name in base:
        torch.testing.assert_close(half[name], (base[name] + tuned[name]) / 2)
        moved += not torch.equal(base[name], tuned[name])
    assert moved > 20
    assert torch.equal(base["logit_scale"], tuned["logit_scale"])
