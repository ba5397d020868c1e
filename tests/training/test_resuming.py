"""A run goes on with the recipe, weights and data it began with, and says what is not the same."""

import json
import shutil
import typing

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from radapter import recipe as recipes
from radapter.data.opening import DataSource, UnlabelledSource
from radapter.errors import BrokenInput, UsageError
from radapter.recipe import Recipe
from radapter.training import Interrupted, resume, resuming, train


@pytest.fixture
def stopped(tiny_folder, shapes, tmp_path):
    """A run that was stopped after its second step, of data and a model of its own."""
    shutil.copytree(shapes, tmp_path / "shapes")
    shutil.copytree(tiny_folder, tmp_path / "model")
    seen = []
    recipe = tiny.recipe(tmp_path / "model", tmp_path / "shapes", "data.hold_out=0.2")
    with pytest.raises(Interrupted) as caught:
        train(recipe, tmp_path / "runs", on_step=seen.append, should_stop=lambda: len(seen) == 2)
    return caught.value.run


def change(run, *overrides):
    path = run.path / "recipe.yaml"
    path.write_text(recipes.dump(recipes.load(path, overrides)))


REFUSED = {
    "optimisation.lr=1e-4": ("optimisation.lr is 0.0001, and was 0.01", "put that back"),
    "optimisation.epochs=5": ("optimisation.epochs is 5, and was 3", "a longer run is another one"),
    "optimisation.batch_size=4": ("optimisation.batch_size is 4, and was 8",),
    "seed=4": ("seed is 4, and was 3",),
    "method.rank=2": ("method.rank is 2, and was full",),
    "method={name: lora}": ("method.name is lora, and was r-adapter",),
    "precision=bf16": ("precision is bf16, and was fp32",),
    "objective.margin=0.1": ("objective.margin is 0.1, and was 0.05",),
    "data.hold_out=0.1": ("data.hold_out is 0.1, and was 0.2",),
    "data.templates=['a {}']": ("data.templates is",),
    "data.augmentation.flip=0.5": ("data.augmentation.flip is 0.5, and was 0.0",),
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_changes_the_result_is_refused_by_key(stopped, override):
    change(stopped, override)
    with pytest.raises(UsageError) as caught:
        resume(stopped)
    for words in (*REFUSED[override], f"radapter train {stopped.path / 'recipe.yaml'}"):
        assert words in str(caught.value)


def test_all_changes_are_named_at_once(stopped):
    change(stopped, "seed=4", "optimisation.lr=1e-4", "workers=1")
    with pytest.raises(UsageError) as caught:
        resume(stopped)
    assert "seed is 4" in str(caught.value)
    assert "optimisation.lr" in str(caught.value)
    assert "workers" not in str(caught.value)


def test_what_may_change_may_and_the_result_stays(stopped, tmp_path):
    whole = train(stopped.recipe(), tmp_path / "whole")
    (tmp_path / "shapes").rename(tmp_path / "moved")
    change(
        stopped,
        f"data.root={tmp_path / 'moved'}",
        "optimisation.micro_batch=4",
        "activation_checkpointing=true",
        "monitor.every_steps=4",
        "checkpoints.keep=1",
        "alpha=0.3",
        "suites=[emoji-shifts]",
        "data.broken_images=2",
    )
    resume(stopped)
    ours, theirs = load_file(stopped.adapter), load_file(whole.adapter)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-3)


def test_a_monitored_run_keeps_its_alpha_and_its_held_out_data(tiny_folder, shapes, tmp_path):
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.4", "monitor.every_steps=1")
    with pytest.raises(Interrupted) as caught:
        train(recipe, tmp_path, should_stop=lambda: True)
    run = caught.value.run
    change(run, "alpha=0.7")  # scores are of the recipe's alpha, as monitor names none
    with pytest.raises(UsageError, match=r"monitor.alpha is 0.7, and was 0.5"):
        resume(run)
    change(run, "monitor={}")
    resume(run)


def test_another_base_model_under_the_same_name_is_refused(stopped, tmp_path):
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["visual.proj"] += 0.01
    save_file(tensors, weights)
    with pytest.raises(BrokenInput, match="has other weights than those that step 2"):
        resume(stopped)


def test_other_data_under_the_same_name_is_refused(stopped, tmp_path):
    folder = tmp_path / "shapes" / "red_square"
    shutil.copy(folder / "00.png", folder / "another.png")
    shutil.copy(folder / "00.png", folder / "one-more.png")
    shutil.copy(folder / "00.png", folder / "and-one.png")
    with pytest.raises(BrokenInput, match=r"is not what step 2 .* it has \d+ pairs, and had \d+"):
        resume(stopped)


def forget(run):
    """As older versions wrote it."""
    for path in run.checkpoints.glob("step-*/state.json"):
        facts = json.loads(path.read_text())
        del facts["of"]
        path.write_text(json.dumps(facts))


def test_a_checkpoint_that_does_not_say_what_it_is_of_goes_on(stopped):
    forget(stopped)
    change(stopped, "optimisation.lr=1e-3")
    assert resume(stopped).adapter.is_file()


def test_but_not_with_another_method(stopped):
    forget(stopped)
    change(stopped, "method.rank=2")
    with pytest.raises(BrokenInput, match="is of another model or method"):
        resume(stopped)


def test_settings_that_may_change_are_settings():
    def keys(model, start=""):
        for name, field in model.model_fields.items():
            yield f"{start}{name}"
            for kind in (field.annotation, *typing.get_args(field.annotation)):
                if hasattr(kind, "model_fields"):
                    yield from keys(kind, f"{start}{name}.")

    known = set(keys(Recipe))
    of = {"data": DataSource, "validation": DataSource, "unlabelled": UnlabelledSource}
    known |= {
        f"{part}.{key}"
        for part, source in of.items()
        for kind in source.__origin__.__args__
        for key in keys(kind)
    }
    assert set(resuming.MAY_CHANGE) <= known
