"""TPGM: the projection, the gradient of its radii and Adam by NumPy; and merging a run by it."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch

from radapter import merging, models
from radapter.data import open_data
from radapter.errors import UsageError
from radapter.merging import tpgm
from radapter.run import Run
from radapter.training import train
from radapter.training.projecting import held_out_gradient, merge_by_tpgm

SHAPES = {"matrix": (4, 3), "bias": (4,), "kernel": (2, 3, 2), "scalar": ()}


def rows_of(change, norm):
    if norm == "l2":
        return np.sqrt(np.sum(change**2))
    if change.ndim < 2:
        return np.sum(np.abs(change))
    return np.sum(np.abs(change), axis=tuple(range(1, change.ndim)), keepdims=True)


def projected(base, change, radius, norm):
    return base + np.minimum(1, radius / (rows_of(change, norm) + 1e-8)) * change


def case():
    """A base, tuned weights, and a bowl around a place between the two, less or more far."""
    generator = np.random.default_rng(3)
    base = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    change = {name: 0.05 * generator.normal(size=shape) for name, shape in SHAPES.items()}
    far = {"matrix": 0.9, "bias": 0.1, "kernel": 1.2, "scalar": 0.3}
    goal = {name: base[name] + far[name] * change[name] for name in SHAPES}
    return base, change, goal


def tensors(state):
    return {name: torch.as_tensor(value) for name, value in state.items()}


@pytest.mark.parametrize("norm", ["mars", "l2"])
def test_twenty_steps_are_those_of_the_formula(norm):
    base, change, goal = case()
    radii = {name: np.min(rows_of(change[name], norm)) / 2 for name in SHAPES}
    moments = {name: [0.0, 0.0] for name in SHAPES}

    def bounded(name):
        return min(max(radii[name], 1e-8), np.max(rows_of(change[name], norm)))

    def slope_of(name):
        """Of the squared distance from the goal, for the radius."""
        rows = rows_of(change[name], norm) + 1e-8
        off = projected(base[name], change[name], radii[name], norm) - goal[name]
        return np.sum(2 * off * change[name] / rows * (radii[name] / rows < 1))

    for step in range(1, 21):
        for name in SHAPES:
            radii[name] = bounded(name)
            slope = slope_of(name)
            first = moments[name][0] = 0.9 * moments[name][0] + 0.1 * slope
            second = moments[name][1] = 0.999 * moments[name][1] + 0.001 * slope**2
            root = np.sqrt(second / (1 - 0.999**step))
            radii[name] -= 1e-2 * first / (1 - 0.9**step) / (root + 1e-8)
    radii = {name: bounded(name) for name in SHAPES}

    def gradient(state):
        return {name: 2 * (state[name] - torch.as_tensor(goal[name])) for name in SHAPES}

    tuned = {name: base[name] + change[name] for name in SHAPES}
    found, facts = tpgm.project(tensors(base), tensors(tuned), gradient, norm=norm, steps=20)
    shares = []
    for name in SHAPES:
        expected = projected(base[name], change[name], radii[name], norm)
        np.testing.assert_allclose(found[name], expected, atol=1e-12)
        rows = rows_of(change[name], norm)
        shares.append(np.mean(np.minimum(1, radii[name] / (rows + 1e-8))))
    kept = {"smallest": min(shares), "mean": np.mean(shares), "largest": max(shares)}
    assert facts == {"norm": norm, "steps": 20, "lr": 1e-2, "kept": pytest.approx(kept, abs=1e-12)}
    assert min(shares) < 0.3 < 0.8 < max(shares)


@pytest.mark.parametrize("norm", ["mars", "l2"])
def test_the_gradient_of_a_radius_is_that_of_autograd(norm):
    base, change, goal = map(tensors, case())
    given = []

    def gradient(state):
        given.append({name: value - goal[name] for name, value in state.items()})
        return given[-1]

    seen = []
    real = torch.optim.Adam.step

    def step(adam, closure=None):
        seen.extend(p.grad.clone() for p in adam.param_groups[0]["params"])
        return real(adam, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        tuned = {name: base[name] + change[name] for name in base}
        tpgm.project(base, tuned, gradient, norm=norm, steps=1)
    for ours, name in zip(seen, base, strict=True):
        own = tpgm.norm_of(change[name], norm)
        radius = (own.min() / 2).requires_grad_()
        weights = base[name] + (radius / (own + 1e-8)).clamp(max=1) * change[name]
        (theirs,) = torch.autograd.grad((weights * given[0][name]).sum(), radius)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)


# ---------------------------------------------------------------- of a run


@pytest.fixture(scope="module")
def run(tiny_folder, shapes, tmp_path_factory):
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3", "method.rank=3")
    return train(recipe, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def own_run(run, tmp_path):
    return Run(shutil.copytree(run.path, tmp_path / run.path.name))


def test_the_gradient_is_that_of_the_loss_on_held_out_pairs(run):
    """The same again for the same batch, and of the trained weights."""
    trained = merging.open_trained(run)
    recipe, whole = run.recipe(), trained.at(1.0)
    name = "visual.transformer.resblocks.1.mlp.c_proj.weight"
    state = {name: whole[name].clone()}
    first = held_out_gradient(recipe, trained.base, steps=2)(state)[name]
    again = held_out_gradient(recipe, trained.base, steps=2)
    assert torch.equal(again(state)[name], first)
    assert first.abs().max() > 0


def test_a_merged_folder_says_how_it_was_learned(own_run):
    trained = merging.open_trained(own_run)
    asked = []
    folder, written = merge_by_tpgm(
        own_run, trained, steps=6, on_step=lambda done, total: asked.append((done, total))
    )
    assert written
    assert asked == [(step, 6) for step in range(1, 7)]
    assert (folder.name, own_run.merged()) == ("tpgm", folder)
    loaded, facts = merging.read_merged(own_run)
    assert facts["rule"] == "tpgm"
    assert (facts["alpha"], facts["norm"], facts["steps"]) == (1.0, "mars", 6)
    assert (facts["loss"], facts["data"]) == (
        "mpm-nce",
        own_run.recipe().validation_data().in_words(),
    )
    base, whole = trained.at(0.0), trained.at(1.0)
    for name, value in loaded.model.state_dict().items():
        change, own = whole[name] - base[name], value - base[name]
        assert (own.abs() <= change.abs() + 1e-6).all(), name
    assert any(not torch.equal(v, base[n]) for n, v in loaded.model.state_dict().items())
    assert 0 < facts["kept"]["smallest"] <= facts["kept"]["mean"] <= facts["kept"]["largest"] <= 1
    assert merge_by_tpgm(own_run, trained, steps=6) == (folder, False)
    assert models.load(folder).weights_hash == facts["weights_hash"]
    other, _ = merge_by_tpgm(own_run, trained, norm="l2", steps=2)
    assert other.name == "tpgm-l2"


HEAD = ["head={name: linear}", "objective=[{name: cross-entropy, smoothing: 0.1}]"]


def test_radii_of_a_run_with_a_head_are_trained_by_the_loss_of_that_head(
    tiny_folder, shapes, tmp_path
):
    changes = ["method={name: full, towers: image}", *HEAD, "data.hold_out=0.4"]
    run = train(tiny.recipe(tiny_folder, shapes, *changes), tmp_path)
    trained = merging.open_trained(run)
    recipe, head = run.recipe(), trained.head_at(1.0)
    dataset = open_data(recipe.validation_data())
    recipe = recipe.model_copy(
        update={"optimisation": recipe.optimisation.model_copy(update={"batch_size": len(dataset)})}
    )
    model = models.load(recipe.model)
    model.model.load_state_dict(trained.at(1.0))
    pictures = torch.stack([model.preprocess(dataset.read(i)) for i in range(len(dataset))])
    parameter = model.model.visual.proj.requires_grad_()
    features = torch.nn.functional.normalize(model.model.encode_image(pictures), dim=1)
    labels = torch.tensor(dataset.labels)
    torch.nn.functional.cross_entropy(head.module(features), labels, label_smoothing=0.1).backward()
    state = {"visual.proj": parameter.detach().clone()}
    model = models.load(recipe.model)
    model.model.load_state_dict(trained.at(1.0))
    found = held_out_gradient(recipe, model, head=head, steps=1)(state)
    torch.testing.assert_close(found["visual.proj"], parameter.grad, rtol=1e-4, atol=1e-6)
    folder, _ = merge_by_tpgm(run, trained, steps=2)
    assert json.loads((folder / "merged.json").read_text())["loss"] == "cross-entropy"


def test_a_run_that_changed_no_tower_has_nothing_to_limit(tiny_folder, shapes, tmp_path):
    changes = ["method={name: frozen}", *HEAD, "data.hold_out=0.3", "optimisation.epochs=1"]
    run = train(tiny.recipe(tiny_folder, shapes, *changes), tmp_path)
    with pytest.raises(UsageError, match="changed no weights of the towers"):
        merge_by_tpgm(run, merging.open_trained(run))


def test_it_needs_held_out_data_and_a_method_that_folds(tiny_folder, shapes, tmp_path):
    short = "optimisation.epochs=1"
    for changes, match in (
        ([], "needs held-out data"),
        (["method={name: uniadapter}", "data.hold_out=0.3"], "does not fold into plain weights"),
    ):
        made = train(tiny.recipe(tiny_folder, shapes, short, *changes), tmp_path)
        with pytest.raises(UsageError, match=match):
            merge_by_tpgm(made, merging.open_trained(made))
        assert not (made.path / "merged").exists()


def test_facts_are_plain_data(own_run):
    folder, _ = merge_by_tpgm(own_run, merging.open_trained(own_run), steps=1)
    assert json.loads((folder / "merged.json").read_text())["kept"]
