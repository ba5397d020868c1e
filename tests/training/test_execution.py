"""Compiled or checkpointed towers train the same adapter; what is waited for is measured."""

import json
import shutil
import time

import pytest
import tiny
import torch
from safetensors.torch import load_file

from radapter import models
from radapter.errors import MissingDependency
from radapter.methods import METHODS
from radapter.training import execution, plan, train
from radapter.training.waiting import Waited

compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")), reason="no C++ compiler"
)


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def features_and_gradients(recipe, settings):
    loaded = models.load(recipe.model)
    torch.manual_seed(1)
    attached = METHODS[recipe.method.name].attach(loaded.model, **settings)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    loaded.model.train()
    execution.set_up(loaded.model, recipe)
    images, tokens = tiny.batch(loaded)
    found = []
    for seed, length in ((3, 14), (4, 12)):  # short texts: lengths differ from step to step
        torch.manual_seed(seed)
        features = tiny.features(loaded.model, images, tokens[:, :length])
        for parameter in attached.parameters():
            parameter.grad = None
        features.square().sum().backward()
        found += [features.detach(), *(p.grad for p in attached.parameters())]
    return found


@compiler
@pytest.mark.slow
def test_compiled_towers_are_equal(recipe):
    """Outputs, gradients, and which adapters are dropped."""
    settings = {"drop": 0.5, "learn_scale": True}
    expected = features_and_gradients(recipe(), settings)
    compiled = features_and_gradients(recipe("compile=true"), settings)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert any(not value.any() for value in expected)  # some are dropped
    for ours, theirs in zip(compiled, expected, strict=True):
        # A scale's gradient is a sum that nearly cancels; another dropped adapter is all of it.
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()


def test_without_a_compiler_it_is_said(recipe, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    plan(recipe())
    with pytest.raises(MissingDependency, match="C\\+\\+ compiler"):
        plan(recipe("compile=true"))


@pytest.mark.parametrize("method", ["r-adapter", "full", "lora"])
def test_activation_checkpointing_trains_the_same_adapter(recipe, tmp_path, method):
    change = () if method == "r-adapter" else (f"method={{name: {method}}}",)
    adapters = []
    for on in ("true", "false"):
        run = train(recipe(*change, f"activation_checkpointing={on}"), tmp_path / on)
        adapters.append(load_file(run.adapter))
    for name, value in adapters[1].items():
        torch.testing.assert_close(adapters[0][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_share_of_waiting(recipe, tmp_path, monkeypatch):
    def slow():
        for item in range(4):
            time.sleep(0.02)
            yield item

    waited = Waited(slow())
    assert [item for item in waited if time.sleep(0.02) is None] == [0, 1, 2, 3]
    assert 0.3 < waited.share() < 0.7
    waited.restart()
    assert waited.share() == 0
    run = train(recipe(), tmp_path)
    shares = [json.loads(line)["data_wait_share"] for line in run.metrics.read_text().splitlines()]
    assert len(shares) == 9
    assert all(0 < share < 1 for share in shares)
