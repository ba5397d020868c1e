import numpy as np
import pytest
import tiny
import torch

from radapter import models
from radapter.errors import BrokenInput, UsageError
from radapter.methods import full


@pytest.fixture
def loaded(tiny_folder):
    return models.load(tiny_folder)


def shake(attached, seed=0, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("towers", ["both", "image", "text"])
@pytest.mark.parametrize("temperature", [False, True])
def test_what_is_trained(loaded, towers, temperature):
    attached = full.attach(loaded.model, towers=towers, train_temperature=temperature)
    expected = set()
    for name, _ in loaded.model.named_parameters():
        tower = "image" if name.startswith("visual.") else "text"
        is_temperature = name == "logit_scale"
        if temperature if is_temperature else towers in ("both", tower):
            expected.add(name)
    assert set(attached.stored()) == expected
    trained = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained == expected


def test_interpolation_is_exact_at_both_ends_and_straight_between(loaded):
    base = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    attached = full.attach(loaded.model)
    shake(attached, size=30.0)  # so far away that base + (tuned - base) rounds
    stored, tuned = attached.stored(), loaded.model.state_dict()
    at_zero, at_one = full.merge(base, stored, 0.0), full.merge(base, stored, 1.0)
    for name in base:
        assert torch.equal(at_zero[name], base[name])
        assert torch.equal(at_one[name], tuned[name])
    assert any(not torch.equal(at_one[name], base[name]) for name in base)
    for alpha in (0.3, 0.5, 0.8, 1.2):
        for name, value in full.merge(base, stored, alpha).items():
            start, end = base[name].double().numpy(), tuned[name].double().numpy()
            np.testing.assert_allclose(value, (1 - alpha) * start + alpha * end, atol=3e-5)


def test_another_base_is_refused(loaded):
    attached = full.attach(loaded.model)
    other = tiny.build(text={"width": 32}).model.state_dict()
    with pytest.raises(BrokenInput, match="another model"):
        full.merge(other, attached.stored(), 0.5)
    fewer = {k: v for k, v in loaded.model.state_dict().items() if "resblocks.1" not in k}
    with pytest.raises(BrokenInput, match=r"resblocks\.1"):
        full.merge(fewer, attached.stored(), 0.5)


AFTER = {
    "image": {"visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"},
    "text": {"ln_final.weight", "ln_final.bias", "text_projection"},
}


@pytest.mark.parametrize("towers", ["both", "image", "text"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_last_blocks_and_what_follows_them(loaded, towers, count):
    attached = full.attach(loaded.model, towers=towers, last_blocks=count)
    expected = set()
    for tower, start in (("image", "visual.transformer."), ("text", "transformer.")):
        if towers in ("both", tower):
            blocks = tuple(f"{start}resblocks.{2 - i}." for i in range(1, count + 1))
            own = {n for n, _ in loaded.model.named_parameters() if n.startswith(blocks)}
            assert any(".ln_1." in name for name in own)
            expected |= own | AFTER[tower]
    assert set(attached.trained) == expected


def test_more_last_blocks_than_there_are(loaded):
    with pytest.raises(UsageError, match="last_blocks is 3, and the text tower has 2 blocks"):
        full.attach(loaded.model, towers="text", last_blocks=3)
