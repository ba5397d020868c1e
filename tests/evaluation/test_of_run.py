"""Scoring a run from Python: what is looked at first, what each point says of its weights."""

import dataclasses
import gc
import json
import weakref
from collections import Counter

import pytest
import tiny
import torch

from radapter import merging, models
from radapter.errors import BrokenInput
from radapter.evaluation import alphas as over_alpha
from radapter.evaluation import of_run
from radapter.evaluation.cache import Cache
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite, held_out_suite
from radapter.runtimes.opened import from_loaded
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.training import train


@pytest.fixture(scope="module")
def run(tiny_folder, shapes, tmp_path_factory):
    recipe = tiny.recipe(tiny_folder, shapes, "data.hold_out=0.3")
    run = train(recipe, tmp_path_factory.mktemp("runs"))
    merging.write_merged(run, 0.5)
    return run


def test_each_point_names_the_weights_it_was_scored_with(run):
    done = []
    suite = held_out_suite(run.recipe())
    result = of_run.evaluate_alphas(
        run, suite, [0.0, 0.5, 1.0], on_progress=lambda *now: done.append(now)
    )
    trained = merging.open_trained(run)
    for point in result["points"]:
        weights = models.weights_hash(trained.at(point["alpha"]))
        assert point["provenance"]["weights_hash"] == weights
    pictures = result["points"][0]["datasets"]["held-out"]["pictures"]
    assert done == [(3 * pictures, 3 * pictures)]
    stored = json.loads((run.evaluations / "held-out-alphas.json").read_text())
    plain = json.loads(json.dumps(result, default=list))
    assert stored == {key: value for key, value in plain.items() if key != "file"}
    assert stored["chosen"] == 0.5


@pytest.mark.parametrize("free", [2**40, 0])
def test_each_picture_is_read_once_for_all_alphas(run, monkeypatch, free):
    """As far as memory goes; without any room, once an alpha. The numbers are those of the models
    that are merged one by one."""
    monkeypatch.setattr(over_alpha, "free_memory", lambda device: free)
    suite = held_out_suite(run.recipe())
    opened = suite.open()
    data = opened["held-out"]["classification"]
    reads = Counter()

    def read(index):
        reads[index] += 1
        return data.read(index)

    opened["held-out"]["classification"] = dataclasses.replace(data, read=read)
    alphas = [0.3, 0.7, 1.0]
    trained = merging.open_trained(run)
    curve = dict(over_alpha.alpha_curve(suite, trained, alphas, opened=opened))
    assert set(reads.values()) == {1 if free else 3}
    assert len(reads) == len(data)
    for alpha in alphas:
        alone = models.load(run.recipe().model)
        alone.model.load_state_dict(trained.at(alpha))
        expected = evaluate(suite, from_loaded(alone))
        found = curve[alpha].result()["datasets"]["held-out"]
        assert found == expected.result()["datasets"]["held-out"]
        assert torch.equal(
            curve[alpha].sets["held-out"].predictions, expected.sets["held-out"].predictions
        )
        assert curve[alpha].runtime.identity == PyTorchRuntime(alone).identity
    base = models.load(run.recipe().model).weights_hash
    assert models.weights_hash(trained.base.model.state_dict()) == base


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_models_are_counted_and_gone_before_the_next_are_made(run, monkeypatch, precision):
    """Whoever reads the curve may keep all its points: they keep no model."""
    trained, alphas = merging.open_trained(run), [0.2, 0.4, 0.6, 0.8]
    start, merged = trained.base.model.state_dict(), trained.at(0.2)
    size = sum(t.nbytes for name, t in merged.items() if not torch.equal(t, start[name]))
    if precision != "fp32":
        size = sum(t.nbytes for t in merged.values()) / 2
    free = 5 * size  # half of it may be taken: two models, and not three
    made, held = [], []

    def memory_left(device):
        gc.collect()
        assert not [model for model in made if model() is not None]
        return free

    def keep(suite, models, **settings):
        made.extend(weakref.ref(model.runtime._model) for model in models)
        (base,) = bases
        shared = {t.data_ptr() for t in base.model.state_dict().values()}
        own = [t for model in models for t in model.runtime._model.state_dict().values()]
        own = [t for t in own if t.data_ptr() not in shared]
        held.append((len(models), sum(t.nbytes for t in own)))
        return evaluate_together(suite, models, **settings)

    bases, load_base = [], over_alpha.load_base
    evaluate_together = over_alpha.evaluate_together

    def base_of(facts):
        bases.append(load_base(facts))
        return bases[-1]

    monkeypatch.setattr(over_alpha, "load_base", base_of)
    monkeypatch.setattr(over_alpha, "free_memory", memory_left)
    monkeypatch.setattr(over_alpha, "evaluate_together", keep)
    suite = held_out_suite(run.recipe())
    curve = list(over_alpha.alpha_curve(suite, trained, alphas, precision=precision))
    assert [alpha for alpha, _ in curve] == alphas
    assert [number for number, _ in held] == [2, 2]
    for _, taken in held:
        assert taken == pytest.approx(2 * size, rel=0.1)


def test_what_torch_keeps_on_a_gpu_is_free(monkeypatch):
    found = {"mem_get_info": (5, 100), "memory_reserved": 40, "memory_allocated": 10}
    for name, value in found.items():
        monkeypatch.setattr(torch.cuda, name, lambda place, value=value: value)
    assert over_alpha.free_memory("cuda") == 5 + 40 - 10


def test_alphas_that_are_kept_are_not_encoded_again(run, tmp_path, monkeypatch):
    """One alpha is in the cache: the others are encoded, and what is found is the same."""
    suite = held_out_suite(run.recipe())
    trained = merging.open_trained(run)
    cache = Cache(tmp_path / "cache", 10**9)
    plain = dict(over_alpha.alpha_curve(suite, trained, [0.0, 0.5, 1.0]))
    list(over_alpha.alpha_curve(suite, trained, [0.5], cache=cache))
    encoded = []
    encode = PyTorchRuntime.encode_image
    monkeypatch.setattr(
        PyTorchRuntime,
        "encode_image",
        lambda self, pixels: (
            encoded.append(self.provenance["weights_hash"]), encode(self, pixels)
        )[1],
    )  # fmt: skip
    found = dict(over_alpha.alpha_curve(suite, trained, [0.0, 0.5, 1.0], cache=cache))
    assert {alpha: e.result() for alpha, e in found.items()} == {
        alpha: e.result() for alpha, e in plain.items()
    }
    assert set(encoded) == {models.weights_hash(trained.at(alpha)) for alpha in (0.0, 1.0)}
    encoded.clear()
    list(over_alpha.alpha_curve(suite, trained, [0.0, 0.5, 1.0], cache=cache))
    assert not encoded


@pytest.mark.parametrize("score", [of_run.evaluate_run, of_run.evaluate_alphas])
def test_the_data_is_opened_before_any_model(run, tmp_path, monkeypatch, score):
    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("radapter.merging.merged.load", load)
    monkeypatch.setattr("radapter.merging.trained.load", load)
    data = {"source": "folder", "root": str(tmp_path / "gone"), "split": "all"}
    suite = Suite(
        name="mine",
        tasks=["classification"],
        datasets=[{"name": "set", "role": "shifted", "data": data}],
    )
    with pytest.raises(BrokenInput, match="gone"):
        score(run, suite)
