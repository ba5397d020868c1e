"""Rules that make one model of several runs: formulas by NumPy, and what holds for each of them."""

import functools
import itertools

import numpy as np
import pytest
import tiny
import torch

from radapter import merging, registry
from radapter.errors import UsageError
from radapter.evaluation.held_out import scorer
from radapter.merging.deltas import changed
from radapter.merging.soup import soup
from radapter.registry import RULES, defining
from radapter.training import train
from radapter_cli.soup import RuleChoice

SHAPES = {"matrix": (6, 5), "bias": (6,), "scalar": (), "untouched": (3,)}
NAMES = defining(RULES, "combine")


def states(number=3, spread=1.0):
    """A base and what `number` runs changed: a direction that they share, and one of each."""
    generator = np.random.default_rng(4)
    base = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    shared = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    tuned = [
        {
            name: base[name] + shared[name] + spread * generator.normal(size=shape)
            for name, shape in SHAPES.items()
            if name != "untouched"
        }
        for _ in range(number)
    ]
    return base, tuned


def tensors(state):
    return {name: torch.as_tensor(value) for name, value in state.items()}


def combined(name, base, tuned, **more):
    combine = registry.load(RULES, name).combine
    return combine(tensors(base), [tensors(state) for state in tuned], **more)


def test_the_command_offers_every_rule():
    assert [rule.value for rule in RuleChoice] == NAMES


def test_uniform_by_hand():
    base, tuned = states()
    found, facts = combined("uniform", base, tuned)
    assert list(found) == ["matrix", "bias", "scalar"]
    assert facts == {}
    for name, value in found.items():
        np.testing.assert_allclose(value, np.mean([t[name] for t in tuned], 0), rtol=1e-12)


def test_a_run_that_did_not_change_a_tensor_counts_as_no_change():
    base, tuned = states(2)
    del tuned[1]["bias"]
    found, _ = combined("uniform", base, tuned)
    np.testing.assert_allclose(found["bias"], (tuned[0]["bias"] + base["bias"]) / 2, rtol=1e-12)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_model_stock_by_hand(number):
    base, tuned = states(number)
    found, facts = combined("model-stock", base, tuned)
    ratios = []
    for name, value in found.items():
        changes = [np.ravel(t[name] - base[name]) for t in tuned]
        cosines = [
            a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in itertools.combinations(changes, 2)
        ]
        cosine = max(0.0, np.mean(cosines))
        t = number * cosine / (1 + (number - 1) * cosine)
        if number == 2:  # the form of the paper's equation for two
            assert t == pytest.approx(2 * cosine / (1 + cosine))
        mean = np.mean([t[name] for t in tuned], 0)
        np.testing.assert_allclose(value, t * mean + (1 - t) * base[name], rtol=1e-9)
        ratios.append(t)
    assert 0 < min(ratios) < max(ratios)
    expected = {"smallest": min(ratios), "mean": np.mean(ratios), "largest": max(ratios)}
    assert facts["ratio"] == pytest.approx(expected)


def test_model_stock_at_its_ends():
    base, (one, _) = states(2)
    found, facts = combined("model-stock", base, [one, one])
    assert facts["ratio"]["smallest"] == pytest.approx(1.0)
    np.testing.assert_allclose(found["matrix"], one["matrix"], rtol=1e-12)
    away = {name: 2 * base[name] - value for name, value in one.items()}
    found, facts = combined("model-stock", base, [one, away])
    assert facts["ratio"]["largest"] == 0
    np.testing.assert_allclose(found["matrix"], base["matrix"], rtol=1e-12)
    assert combined("model-stock", base, [{}, {}]) == ({}, {})


def greedy(scores, number=3, ties="leave"):
    """What greedy makes of runs 0, 1, ..., by the scores of sets of them."""
    base = {"w": torch.zeros(number, dtype=torch.float64)}
    tuned = [{"w": torch.eye(number, dtype=torch.float64)[i]} for i in range(number)]
    asked = []

    def score(state):
        asked.append(tuple(torch.nonzero(state["w"]).flatten().tolist()))
        return scores[asked[-1]]

    module = registry.load(RULES, "greedy")
    state, facts = module.combine(base, tuned, score=score, ties=ties)
    return state["w"].tolist(), facts["tried"], asked


def test_greedy_tries_from_the_best_and_keeps_what_raises_the_score():
    scores = {(0,): 0.5, (1,): 0.8, (2,): 0.7, (1, 2): 0.75, (0, 1): 0.9}
    weights, tried, asked = greedy(scores)
    assert asked == [(0,), (1,), (2,), (1, 2), (0, 1)]
    assert weights == [0.5, 0.5, 0.0]
    assert [(step["run"], step["added"]) for step in tried] == [(1, True), (2, False), (0, True)]
    assert tried[1] == {"run": 2, "alone": 0.7, "with": 0.75, "best": 0.8, "added": False}


@pytest.mark.parametrize(("ties", "added"), [("leave", [1.0, 0.0]), ("add", [0.5, 0.5])])
def test_a_tie_is_left_out_as_in_the_code_or_added_as_in_the_paper(ties, added):
    weights, _, _ = greedy({(0,): 0.5, (1,): 0.5, (0, 1): 0.5}, 2, ties)
    assert weights == added


# ---------------------------------------------------------------- of runs


@pytest.fixture(scope="module")
def runs(tiny_folder, shapes, tmp_path_factory):
    """Three runs of one base, of unlike methods."""
    root = tmp_path_factory.mktemp("runs")
    changes = [
        ["method={name: r-adapter, rank: 2, average: {momentum: 0.5}}", "seed=1"],
        ["method={name: r-adapter, rank: 2, average: {momentum: 0.5}}", "seed=2"],
        ["method={name: full}"],
    ]
    held = "data.hold_out=0.3"
    return [train(tiny.recipe(tiny_folder, shapes, held, *more), root) for more in changes]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_run_that_merges_to_what_the_rule_says(runs, tmp_path, name):
    settings = {"scorer": lambda trained, alpha: lambda state: 1.0} if name == "greedy" else {}
    made = soup(runs, name, root=tmp_path, **settings)
    trained = [merging.open_trained(run) for run in runs]
    base = trained[0].base.model.state_dict()
    tuned = [changed(base, one.at(1.0)) for one in trained]
    more = {"score": lambda state: 1.0} if name == "greedy" else {}
    expected, _ = registry.load(RULES, name).combine(base, tuned, **more)
    whole = merging.merge(made, 1.0)
    assert all(torch.equal(whole[key], expected.get(key, base[key])) for key in base)
    assert all(torch.equal(merging.merge(made, 0.0)[key], value) for key, value in base.items())
    about = made.soup()
    assert [run["name"] for run in about["runs"]] == [run.name for run in runs]
    assert made.class_names() == runs[0].class_names()
    assert made.recipe().method.name == "full"
    assert made.recipe().alpha == about["alpha"] == (1.0 if name == "model-stock" else 0.5)


def test_products_are_averaged_and_not_factors(runs, tmp_path):
    """Of two low-rank adapters: the rank of the mean change is that of both together."""
    made = soup(runs[:2], "uniform", root=tmp_path)
    whole, base = merging.merge(made, 1.0), merging.merge(made, 0.0)
    name = "transformer.resblocks.0.mlp.c_proj.weight"
    change = (whole[name] - base[name]).double()
    assert torch.linalg.matrix_rank(change, rtol=1e-3) == 4


def test_what_cannot_be_averaged_is_refused(runs, tiny_folder, shapes, tmp_path):
    def trained(model, *changes, root=shapes):
        return train(tiny.recipe(model, root, "optimisation.epochs=1", *changes), tmp_path)

    def refused(others, match):
        with pytest.raises(UsageError, match=match) as caught:
            soup([runs[0], *others], "uniform", root=tmp_path / "none")
        assert str(caught.value).count("\n") == 0
        assert not (tmp_path / "none").exists()

    refused([], "of two runs or more")
    refused([runs[0]], "is named twice")
    refused([trained(tiny_folder, "method={name: uniadapter}")], "uniadapter trains does not fold")
    refused([trained(tiny.write(tmp_path / "b", seed=1))], "starts from other weights")
    other = tiny.draw_shapes(tmp_path / "renamed")
    (other / "red_square").rename(other / "a_red_square")
    refused([trained(tiny_folder, root=other)], "not trained on the same classes")


HEAD = ["head={name: linear, bias: true}", "objective=[{name: cross-entropy}]"]


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_averaged_as_all_other_weights(runs, tiny_folder, shapes, tmp_path, name):
    def trained(seed):
        own = ["method={name: full, towers: image}", "data.hold_out=0.3", f"seed={seed}", *HEAD]
        return train(tiny.recipe(tiny_folder, shapes, "optimisation.epochs=1", *own), tmp_path)

    pair = [trained(1), trained(2)]
    scores = {"scorer": functools.partial(scorer, pair[0].recipe())} if name == "greedy" else {}
    made = merging.open_trained(soup(pair, name, root=tmp_path, alpha=0.5, **scores))
    one, two = (merging.open_trained(run).head_at(1.0).module.state_dict() for run in pair)
    found, start = (made.head_at(alpha).module.state_dict() for alpha in (1.0, 0.0))
    assert made.facts["head"]["classes"] == made.classes
    for key, value in found.items():
        if key == "scale":  # which is not trained
            assert torch.equal(value, start[key])
            continue
        assert not torch.equal(one[key], two[key])
        changes = [head[key] - start[key] for head in (one, two)]
        mean = sum(changes) / 2
        if name == "model-stock":
            mean = registry.load(RULES, name).ratio(changes) * mean
        expected = [start[key] + mean, *([one[key], two[key]] if name == "greedy" else [])]
        assert any(torch.allclose(value, other, atol=1e-6) for other in expected)
    with pytest.raises(UsageError, match="differ in `head`"):
        soup([pair[0], runs[0]], "uniform", root=tmp_path)


def test_heads_that_start_from_other_texts_are_refused(tiny_folder, shapes, tmp_path):
    """Model Stock measures changes from one start, and alpha leads back to one."""
    probe = ["method={name: frozen}", "head={name: linear}", "objective=[{name: cross-entropy}]"]
    one, two, other = (
        train(tiny.recipe(tiny_folder, shapes, *probe, *changes), tmp_path)
        for changes in ([], ["seed=1"], ['data.templates=["one {} of many"]'])
    )
    with pytest.raises(UsageError, match="starts from other texts than that of"):
        soup([one, other], "uniform", root=tmp_path / "none")
    assert soup([one, two], "uniform", root=tmp_path / "soups").class_names() == one.class_names()


def test_another_preprocessing_is_refused(runs, tmp_path, monkeypatch):
    from radapter.models import LoadedModel

    calls = iter([{"mean": 0.0}, {"mean": 1.0}])
    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "used_with", property(lambda model: next(calls)))
        with pytest.raises(UsageError, match="prepares its pictures in another way"):
            soup(runs[:2], "uniform", root=tmp_path)
