"""Less is kept for the backward pass, and no number changes."""

import pytest
import tiny
import torch
from open_clip.transformer import LayerNorm, LayerNormFp32, QuickGELU

from radapter import models
from radapter.training import execution, train
from radapter.training.encoding import encode_pictures
from radapter.training.kept import keep_less

HALF = [torch.bfloat16, torch.float16]


def run(module, x, less):
    """Output, gradients, and the bytes that were kept beside the module's own parameters."""
    if less:
        keep_less(module)
    x = x.clone().requires_grad_()
    own, kept = {p.untyped_storage()._cdata for p in module.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = module(x)
    torch.manual_seed(1)
    y.backward(torch.randn(y.shape).to(y.dtype))
    gradients = [x.grad, *(p.grad for p in module.parameters())]
    return y.detach(), gradients, sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_quick_gelu_keeps_its_input_alone(dtype):
    x = (3 * torch.randn(50, 64)).to(dtype)
    before, after = (run(QuickGELU(), x, less) for less in (False, True))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1][0], after[1][0])
    assert (before[2], after[2]) == (2 * x.nbytes, x.nbytes)


def normed(kind, bias=True):
    module = kind(64, bias=bias)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("kind", [LayerNorm, LayerNormFp32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", HALF)
def test_layer_norm_keeps_half_precision(kind, bias, dtype):
    """`LayerNormFp32` computes as autocast on CUDA lets `LayerNorm` compute."""
    torch.manual_seed(0)
    x = torch.randn(50, 64).to(dtype)
    module = normed(kind, bias)
    reference = LayerNormFp32(64, bias=bias)
    reference.load_state_dict(module.state_dict())
    before, after = run(reference, x, False), run(module, x, True)
    assert torch.equal(before[0], after[0])
    for one, two in zip(before[1], after[1], strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
    rest = 2 * 4 * 50  # mean and deviation of each row
    assert (before[2], after[2]) == (4 * x.numel() + rest, 2 * x.numel() + rest)


def test_layer_norm_with_frozen_weights():
    module = normed(LayerNorm).requires_grad_(False)
    x = torch.randn(5, 64).bfloat16()
    _, gradients, _ = run(module, x, True)
    assert gradients[0].dtype == torch.bfloat16
    assert gradients[1:] == [None, None]


@pytest.fixture
def quick(tmp_path):
    return tiny.write(tmp_path / "quick", quick_gelu=True)


@pytest.mark.parametrize("method", ["r-adapter", "full", "lora"])
def test_a_run_in_fp32_is_the_same_bit_for_bit(quick, shapes, tmp_path, monkeypatch, method):
    recipe = tiny.recipe(quick, shapes, f"method={{name: {method}}}")
    with_less = train(recipe, tmp_path / "less").adapter.read_bytes()
    monkeypatch.setattr(execution, "keep_less", lambda model: None)
    assert train(recipe, tmp_path / "more").adapter.read_bytes() == with_less


def test_a_tower_in_bf16_keeps_less(quick):
    kept = []
    for less in (False, True):
        model = models.load(quick).model.train()
        if less:
            keep_less(model)
        own = {p.untyped_storage()._cdata for p in model.parameters()}
        found = {}

        def keep(tensor, found=found, own=own):
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                found[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = encode_pictures(model, torch.zeros(64, 3, 32, 32), torch.bfloat16)
        kept.append(sum(storage.nbytes() for storage in found.values()))
        assert features.requires_grad
    wide = 2 * 64 * 5 * 4 * 32  # bytes, of a block's tensor of the MLP's width
    assert kept[0] - kept[1] == 2 * wide
