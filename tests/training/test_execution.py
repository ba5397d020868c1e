"""Compiled or checkpointed towers train the same adapter; what is waited for is measured."""

import json
import shutil
import time
import warnings
from contextlib import nullcontext

import pytest
import tiny
import torch
from safetensors.torch import load_file

from radapter import models, registry
from radapter.errors import MissingDependency
from radapter.methods.batch_rows import rows
from radapter.precision import cpu_has_bf16, exact_fp32
from radapter.registry import METHODS
from radapter.training import execution, plan, train, waiting
from radapter.training.encoding import encode_pictures
from radapter.training.waiting import Waited

compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")), reason="no C++ compiler"
)


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


def features_and_gradients(recipe, settings, device="cpu"):
    loaded = models.load(recipe.model)
    loaded.model.to(device)
    torch.manual_seed(1)
    attached = registry.load(METHODS, recipe.method.name).attach(loaded.model, **settings)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape).to(device))
    loaded.model.train()
    execution.set_up(loaded.model, recipe, device)
    images, tokens = (tensor.to(device) for tensor in tiny.batch(loaded))
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
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ],
)
def test_compiled_towers_are_equal(recipe, device):
    """Outputs, gradients, and which adapters are dropped."""
    settings = {"drop": 0.5, "learn_scale": True}
    with exact_fp32():
        expected = features_and_gradients(recipe(), settings, device)
        compiled = features_and_gradients(recipe("compile=true"), settings, device)
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


def test_without_triton_it_is_said_on_a_gpu(recipe, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    model = models.load(recipe().model).model
    monkeypatch.setattr(execution.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install triton"):
        execution.set_up(model, recipe("compile=true"), "cuda")
    execution.set_up(model, recipe(), "cuda")


@compiler
@pytest.mark.slow
def test_what_is_known_of_pictures_reaches_compiled_towers(recipe):
    found = []
    for compiled in ("false", "true"):
        loaded = models.load(recipe().model)
        torch.manual_seed(1)
        attach = registry.load(METHODS, "ucdr-prompts").attach
        attached = attach(loaded.model, domains=2, classes=3, context=0)
        execution.set_up(loaded.model, recipe(f"compile={compiled}"))
        images, _ = tiny.batch(loaded)
        own = []
        for groups, domains in (([0, 1, 2], [0, 1, 1]), ([2, 2, 0], [1, 0, 0])):
            known = {"groups": torch.tensor(groups), "domains": torch.tensor(domains)}
            for parameter in attached.parameters():
                parameter.grad = None
            with rows(0, 3, known):
                features = loaded.model.encode_image(images)
            features.square().sum().backward()
            own += [features.detach(), *(p.grad for p in attached.parameters())]
        found.append(own)
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
    assert (found[0][0] - found[0][3]).abs().max() > 1e-2


@pytest.mark.parametrize("method", ["r-adapter", "full", "lora", "ucdr-prompts, context: 0"])
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


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def fed(clock, waited, items, seconds, share):
    """Lets `items` pass, over `seconds`, of which the waiting takes `share`."""
    heard, iterator = [], iter(waited)
    for _ in range(items):
        clock.wait = seconds / items * share
        next(iterator)
        clock.now += seconds / items * (1 - share)
        heard.append(waited.advice(workers=2))
    return [text for text in heard if text]


@pytest.mark.parametrize(
    ("share", "seconds", "items", "expected"),
    [
        (0.5, 100, 300, "50%"),
        (0.35, 100, 300, "35%"),
        (0.25, 100, 300, None),
        (0.5, 10, 300, None),  # too short to be worth it
        (0.5, 100, 40, None),  # too few to know
    ],
)
def test_much_waiting_is_said_once(monkeypatch, share, seconds, items, expected):
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    monkeypatch.setattr(waiting.processors, "at_hand", lambda: 16)

    def slow():
        while True:
            clock.now += clock.wait
            yield 0

    waited = Waited(slow())
    clock.wait = 50.0  # the workers begin
    next(iter(waited))
    said = fed(clock, waited, items, seconds, share)
    assert len(said) == (expected is not None)
    if expected:
        assert f"{expected} of the time" in said[0]
        assert "2 processes read on 16 processors" in said[0]
        assert "workers=15" in said[0]


def test_where_all_processors_read_something_else_is_advised(monkeypatch):
    waited = Waited([])
    waited.number, waited.all = 1000, 1e9
    waited.since -= 1e9
    monkeypatch.setattr(waiting.processors, "at_hand", lambda: 3)
    assert "more processors, or pictures" in waited.advice(workers=2)
    assert waited.advice(workers=2) is None


def test_validation_is_no_waiting(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    waited = Waited([])
    clock.now += 40
    waited.seconds = waited.all = 20
    waited.exclude(30)
    assert waited.share() == 2.0
    assert clock.now - waited.since == 10


@pytest.mark.parametrize(
    ("precision", "device", "has", "said"),
    [("bf16", "cuda", False, 1), ("bf16", "cuda", True, 0), ("fp16", "cuda", False, 0)],
)
def test_a_gpu_that_emulates_bf16_is_told(recipe, monkeypatch, precision, device, has, said):
    monkeypatch.setattr(execution, "cuda_has_bf16", lambda: has)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asked = recipe(f"precision={precision}")
        assert execution.precision_on(asked, torch.device(device)) == precision
    assert len(caught) == said
    assert all("precision=fp16" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("has", [True, False])
def test_a_run_says_what_its_towers_compute_in(recipe, tmp_path, monkeypatch, has):
    """Without bf16 the run is that of `precision: fp32`, bit for bit; its recipe stays as it is."""
    monkeypatch.setattr("radapter.precision.cpu_has_bf16", lambda: has)
    with nullcontext() if has else pytest.warns(UserWarning, match="compute in fp32"):
        run = train(recipe("precision=bf16"), tmp_path)
    facts = json.loads((run.path / "environment.json").read_text())
    assert (facts["precision"], run.recipe().precision) == ("bf16" if has else "fp32", "bf16")
    exact = train(recipe("precision=fp32"), tmp_path)
    one, two = (load_file(r.adapter) for r in (run, exact))
    assert all(torch.equal(one[name], two[name]) for name in two) == (not has)


@pytest.mark.parametrize("has", [True, False])
def test_torch_says_whether_a_cpu_has_bf16(monkeypatch, has):
    name = "_is_mkldnn_bf16_supported"
    monkeypatch.setattr(torch.ops.mkldnn, name, lambda: has, raising=False)
    assert cpu_has_bf16() is has
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert cpu_has_bf16()  # this torch does not say


def attention_of(loaded, precision):
    """Operations of a forward pass of the image tower whose names say attention."""
    images = torch.zeros(2, 3, *models.image_size(loaded.model))
    with (
        execution.attention(loaded.model, torch.device("cpu"), precision),
        torch.profiler.profile() as found,
    ):
        encode_pictures(loaded.model, images, precision).sum().backward()
    return {event.key for event in found.key_averages() if "attention" in event.key}


def test_half_precision_on_a_cpu_takes_plain_attention_for_short_sequences(
    tiny_folder, monkeypatch
):
    loaded = models.load(str(tiny_folder))
    flash = "aten::_scaled_dot_product_flash_attention_for_cpu_backward"
    plain = "aten::_scaled_dot_product_attention_math"
    assert flash in attention_of(loaded, None)
    assert plain in attention_of(loaded, torch.bfloat16)
    assert flash not in attention_of(loaded, torch.bfloat16)
    monkeypatch.setattr(execution, "SHORT", 3)
    assert flash in attention_of(loaded, torch.bfloat16)


def test_plain_attention_gives_the_same_features(tiny_folder):
    loaded = models.load(str(tiny_folder))
    images, _ = tiny.batch(loaded)
    usual = encode_pictures(loaded.model, images, torch.bfloat16)
    with execution.attention(loaded.model, torch.device("cpu"), torch.bfloat16):
        plain = encode_pictures(loaded.model, images, torch.bfloat16)
    assert torch.nn.functional.cosine_similarity(usual, plain).min() > 0.999
