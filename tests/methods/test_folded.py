"""The folded form of an adapted layer: the same outputs and gradients, less work, less memory."""

import contextlib

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from radapter.methods import folded, r_adapter

SIZES = [(2, 3), (2, 6), (5, 40)]
"""Batch and tokens: fewer tokens than the layer is wide, between its two widths, more than both."""


def layer(bias=True):
    torch.manual_seed(0)
    return nn.Linear(20, 8, bias=bias).double().requires_grad_(False)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_the_functions_against_finite_differences_and_the_plain_form(size, bias):
    linear, h = layer(bias), doubles(*size, 20)
    change, down, up = doubles(8, 8), doubles(3, 8), doubles(8, 3)
    z = linear(h)
    plain = z + F.linear(z, change)
    plain_low = z + F.linear(F.linear(z, down), up)

    def after(h, change):
        return folded.after(h, linear(h), linear, change)

    def through(h, change):
        return folded.through_weight(h, linear, change)

    def low_rank(h, down, up):
        return folded.low_rank(h, linear, down, up)

    for function, inputs, expected in (
        (after, (h, change), plain),
        (through, (h, change), plain),
        (low_rank, (h, down, up), plain_low),
    ):
        torch.testing.assert_close(function(*inputs), expected)
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


def test_a_dropped_adapter_has_zeros_for_its_gradient():
    z, weight, scale = doubles(2, 3, 8), doubles(8, 8), torch.tensor(1.0)
    output = folded.dropped(z, weight, scale)
    assert torch.equal(output, z)
    output.square().sum().backward()
    torch.testing.assert_close(z.grad, 2 * z.detach())
    assert torch.equal(weight.grad, torch.zeros(8, 8).double())
    assert scale.grad is None


def module_form(monkeypatch):
    """Adapters as modules after the sublayers, as the authors run them."""

    def after_linear(self, linear, h, z=None):
        return self(F.linear(h, linear.weight, linear.bias) if z is None else z)

    monkeypatch.setattr(r_adapter.Adapter, "after_linear", after_linear)
    monkeypatch.setattr(folded, "can_attend", lambda *arguments: False)


def gradients(
    settings, batch=3, block="default", seed=5, checkpointing=False, precision=torch.float32
):
    """Features, gradients by adapter, and the bytes that were saved for the backward pass."""
    loaded = tiny.build(vision={**tiny.VISION, "block_type": block}, text={"block_type": block})
    torch.manual_seed(1)
    attached = r_adapter.attach(loaded.model, **settings)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    loaded.model.train()
    loaded.model.set_grad_checkpointing(checkpointing)
    images, tokens = tiny.batch(loaded, batch)
    weights = {tensor.untyped_storage().data_ptr() for tensor in loaded.model.state_dict().values()}
    saved = {}

    def save(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(seed)
    low = precision != torch.float32
    observe = (
        contextlib.nullcontext()
        if checkpointing
        else torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    )
    with torch.autocast("cpu", precision, enabled=low), observe:
        features = tiny.features(loaded.model, images, tokens[:, :14])
    features.square().sum().backward()
    found = {
        f"{name}.{key}": parameter.grad
        for name, adapter in attached.modules.items()
        for key, parameter in adapter.named_parameters()
    }
    return features.detach(), found, sum(saved.values())


SETTINGS = [
    {"drop": 0.0},
    {"drop": 0.5},
    {"drop": 0.5, "scale": 0.3, "learn_scale": True},
    {"drop": 0.5, "rank": 3},
    {"drop": 0.5, "rank": 3, "scale": 0.3, "learn_scale": True},
    {"drop": 0.5, "drop_unit": "sample"},
    {"drop": 0.5, "drop_unit": "position", "rank": 3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("block", ["default", "custom"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_model_has_the_gradients_of_the_module_form(monkeypatch, settings, block, batch):
    """`custom` blocks have open_clip's own attention class."""
    features, found, _ = gradients(settings, batch, block)
    module_form(monkeypatch)
    expected_features, expected, _ = gradients(settings, batch, block)
    torch.testing.assert_close(features, expected_features, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    zeros = 0
    for name, gradient in expected.items():
        size = gradient.norm()
        assert (found[name] - gradient).norm() <= 1e-5 * size, name
        zeros += int(size == 0)
    if settings.get("drop_unit", "adapter") == "adapter" and settings["drop"]:
        assert 0 < zeros < len(expected)  # the draw has dropped some and kept some


@pytest.mark.parametrize("settings", [{}, {"rank": 3}], ids=str)
def test_after_attention_no_output_is_saved(monkeypatch, settings):
    settings = {"drop": 0.0, "towers": "image", **settings}
    saved = gradients(settings, batch=200)[2]
    module_form(monkeypatch)
    by_modules = gradients(settings, batch=200)[2]
    # In the first of the two blocks no gradient passes the attention, which then saves nothing.
    assert by_modules - saved == 4 * 200 * 5 * 32


def test_half_precision_keeps_a_small_adapter(monkeypatch):
    """I + s W in bfloat16 has a step of 0.008 on its diagonal."""
    called = []
    for name in ("after", "through_weight", "low_rank"):
        monkeypatch.setattr(folded, name, lambda *a, name=name: called.append(name))
    features, found, _ = gradients({"drop": 0.0}, precision=torch.bfloat16)
    assert not called
    monkeypatch.undo()
    expected_features, expected, _ = gradients({"drop": 0.0})
    torch.testing.assert_close(features.float(), expected_features, rtol=0.1, atol=0.1)
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        assert (found[name] - gradient).norm() < 0.1 * gradient.norm(), name


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_checkpointed_activations_give_the_same_gradients(settings):
    """The forward pass is run again for the backward one, with the same adapters dropped."""
    features, expected, _ = gradients(settings)
    again, found, _ = gradients(settings, checkpointing=True)
    assert torch.equal(again, features)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("rank", ["full", 3])
def test_nothing_below_the_first_adapter_has_gradients(rank):
    loaded = tiny.build()
    r_adapter.attach(loaded.model, rank=rank, drop=0.0)
    loaded.model.train()
    images, tokens = tiny.batch(loaded)
    features = tiny.features(loaded.model, images, tokens)
    nodes, ahead = set(), [features.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            ahead += [following for following, _ in node.next_functions]
    names = [type(node).__name__ for node in nodes]
    assert not [n for n in names if n.startswith(("Convolution", "Embedding"))]
    # Two towers of two blocks: no attention in the first, no ln_1 and no ln_pre of it.
    assert sum(n.startswith("ScaledDotProduct") for n in names) == 2
    assert sum(n.startswith("NativeLayerNorm") for n in names) == 2 * (1 + 2 + 1)
