"""The formulas of UniAdapter and Multiway-Adapter, block by block, against numpy."""

import copy
import math

import numpy as np
import open_clip
import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import models
from radapter.errors import UsageError
from radapter.methods import multiway, uniadapter
from radapter.models.text import encode_text

EQUAL = {"vision": tiny.VISION | {"width": 32}, "text": {"width": 32}}
UNEQUAL = {"vision": tiny.VISION | {"width": 32}, "text": {"width": 16}}


def block_of(model, tower):
    transformer = model.visual.transformer if tower == "image" else model.transformer
    return transformer.resblocks[1]


def shaken(method, sizes, **settings):
    """A model with a method attached, all of it away from its start, its parts by name, and the
    same model without."""
    plain, loaded = tiny.build(**sizes), tiny.build(**sizes)
    torch.manual_seed(2)
    attached = method.attach(loaded.model, **settings)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    loaded.model.eval()
    stored = {name: value.double().numpy() for name, value in attached.stored().items()}
    return plain.model, loaded.model, attached, stored


def stream_of(block, x):
    """The stream behind attention, what the MLP reads, and the output, of a block without."""
    with torch.no_grad():
        after = x + block.attention(block.ln_1(x))
        read = block.ln_2(after)
        return after.double().numpy(), read.double().numpy(), block(x).double().numpy()


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def affine(x, part, name):
    return x @ part[f"{name}.weight"].T + part.get(f"{name}.bias", 0.0)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def tokens_of(block, seed=3):
    width = block.ln_1.weight.shape[0]
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("norm", ["own", "block"])
@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL], ids=["shared", "factored"])
def test_uniadapter(sizes, norm, tower):
    plain, model, _, stored = shaken(uniadapter, sizes, rank=4, norm=norm, init="upstream")
    block = block_of(model, tower)
    x = tokens_of(block)
    after, h, expected = stream_of(block_of(plain, tower), x)
    name = "visual.transformer.resblocks.1" if tower == "image" else "transformer.resblocks.1"
    shared = sizes is EQUAL
    if norm == "own":
        place = "norm.1" if shared else f"{name}.norm"
        h = layer_norm(after, stored[f"{place}.weight"], stored[f"{place}.bias"])
    if not shared:
        h = affine(h, stored, f"{name}.enter")
    added = affine(np.maximum(affine(h, stored, "down.1"), 0), stored, f"{name}.up")
    with torch.no_grad():
        np.testing.assert_allclose(block(x), expected + 0.1 * added, rtol=1e-4, atol=1e-5)
    assert np.abs(added).max() > 0.1


def test_uniadapter_starts_as_published():
    """trunc-normal of 0.02 in the image tower, zero in the text tower."""
    model = tiny.build(vision=tiny.VISION | {"width": 64}).model
    uniadapter.attach(model, rank=64, init="upstream")
    image, text = (block_of(model, tower).mlp.c_proj.adapter.up for tower in ("image", "text"))
    assert image.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(torch.count_nonzero(p) for p in (image.bias, text.bias, text.weight))


def two_towers(width, layers):
    return open_clip.CLIP(
        512,
        {"image_size": 32, "layers": layers, "width": width, "patch_size": 16},
        {"context_length": 8, "vocab_size": 9, "width": width, "heads": 8, "layers": layers},
    )


@pytest.mark.parametrize(("rank", "published"), [(128, 4.8e6), (512, 19e6)])
def test_parameters_of_uniadapter_at_the_published_widths(rank, published):
    """The published count has a third up projection and a second norm a layer: the cross-modal
    branch, which two towers have not."""
    width, layers = 768, 12
    with torch.device("meta"):
        model = two_towers(width, layers)
    attached = uniadapter.attach(model, rank=rank, norm="own")
    ours = sum(parameter.numel() for parameter in attached.parameters())
    assert ours == layers * (3 * rank * width + rank + 2 * width + 2 * width)
    cross_modal = layers * (rank * width + width + 2 * width)
    assert ours + cross_modal == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(
    ("width", "layers", "extractors"),
    [(768, 12, 2.38e6), (1024, 24, 6.34e6)],
    ids=["base", "large"],
)
def test_parameters_of_multiway_at_the_published_widths(width, layers, extractors):
    """Those of BEiT-3, and an enhancer of an extractor's size in every layer."""
    with torch.device("meta"):
        model = two_towers(width, layers)
    attached = multiway.attach(model, rank=64)
    shared = {n: p.numel() for n, p in attached.trained.items() if n.startswith("enhancer.")}
    total = sum(parameter.numel() for parameter in attached.parameters())
    one = 2 * 64 * width + 64 + width
    assert total - sum(shared.values()) == 2 * layers * one == pytest.approx(extractors, rel=0.005)
    assert sum(shared.values()) == layers * one


@pytest.mark.parametrize("method", [uniadapter, multiway])
def test_what_towers_share_is_stored_once_and_learns_from_both(method):
    loaded = tiny.build(**EQUAL)
    settings = {"norm": "own"} if method is uniadapter else {"place": "layers"}
    attached = method.attach(loaded.model, rank=4, **settings)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    shared = {n: p for n, p in attached.trained.items() if n.startswith(("down", "norm", "enh"))}
    assert len({id(p) for p in attached.parameters()}) == len(attached.stored())
    pictures, tokens = tiny.batch(loaded)
    found = []
    for features in (loaded.model.encode_image(pictures), encode_text(loaded.model, tokens)):
        found.append(torch.autograd.grad(features.square().sum(), [*shared.values()]))
    assert shared
    for gradients in found:
        assert all(torch.count_nonzero(gradient) for gradient in gradients)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("enhancer", ["bottleneck", "mlp", "none"])
@pytest.mark.parametrize("extractor", [True, False])
def test_multiway_in_every_layer(tower, enhancer, extractor):
    if not extractor and enhancer == "none":
        with pytest.raises(UsageError, match="multiway trains nothing"):
            multiway.attach(tiny.build().model, extractor=False, enhancer="none")
        return
    settings = {"extractor": extractor, "enhancer": enhancer}
    plain, model, _, stored = shaken(multiway, EQUAL, rank=4, scale=0.6, **settings)
    block = block_of(model, tower)
    x = tokens_of(block)
    after, _, y = stream_of(block_of(plain, tower), x)
    name = "visual.transformer.resblocks.1" if tower == "image" else "transformer.resblocks.1"
    own = f"{name}.extractor"
    if extractor:
        y = y + 0.6 * affine(
            np.maximum(affine(after, stored, f"{own}.down"), 0), stored, f"{own}.up"
        )
    else:
        assert f"{own}.down.weight" not in stored
    with torch.no_grad():
        found = block(x)
    np.testing.assert_allclose(
        found, y + enhanced(y, stored, enhancer, "enhancer.1"), rtol=1e-4, atol=1e-5
    )


def enhanced(y, stored, enhancer, name):
    if enhancer == "none":
        assert not any(key.startswith("enhancer") for key in stored)
        return 0.0
    if enhancer == "mlp":
        inner = gelu(affine(y, stored, f"{name}.first"))
        inner = layer_norm(inner, stored[f"{name}.norm.weight"], stored[f"{name}.norm.bias"])
        return affine(inner, stored, f"{name}.last")
    return affine(np.maximum(affine(y, stored, f"{name}.down"), 0), stored, f"{name}.up")


def test_blocks_that_one_tower_has_alone_have_no_enhancer():
    sizes = {"vision": EQUAL["vision"], "text": {"width": 32, "layers": 1}}
    plain, model, _, stored = shaken(multiway, sizes, rank=4, extractor=False)
    assert {key.split(".")[1] for key in stored} == {"0"}
    x = tokens_of(block_of(plain, "image"))
    for number, (own, before) in enumerate(
        zip(model.visual.transformer.resblocks, plain.visual.transformer.resblocks, strict=True)
    ):
        y = stream_of(before, x)[2]
        if number == 0:
            y = y + enhanced(y, stored, "bottleneck", "enhancer.0")
        with torch.no_grad():
            np.testing.assert_allclose(own(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("enhancer", ["bottleneck", "mlp"])
def test_multiway_in_the_joint_space(enhancer, custom):
    sizes = UNEQUAL | {"custom": custom}
    settings = {"rank": 4, "extractor": False, "enhancer": enhancer}
    plain, model, attached, stored = shaken(multiway, sizes, **settings)
    pictures, tokens = tiny.batch(tiny.build())
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.zero_()  # the copy has its own
        z = torch.cat([plain.encode_image(pictures), plain.encode_text(tokens)])
        z = z.double().numpy()
        expected = z + enhanced(z, stored, enhancer, "enhancer")
        for encode in (encode_text, type(copied).encode_text):
            found = torch.cat([copied.encode_image(pictures), encode(copied, tokens)])
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        unit = torch.cat([copied.encode_image(pictures, True), copied.encode_text(tokens, True)])
        torch.testing.assert_close(unit, F.normalize(found, dim=-1))


def test_towers_of_other_widths_share_no_layer():
    with pytest.raises(
        UsageError, match="here it is 32 in the image tower and 16 in the text tower"
    ):
        multiway.attach(tiny.build(**UNEQUAL).model, place="layers")


def test_the_size_of_the_released_enhancer():
    """A whole MLP in each of 24 layers of width 1024, where the paper claims to add 2 to 3 %."""
    modules = multiway._mlp(torch.empty(1, 1024)).values()
    size = sum(parameter.numel() for module in modules for parameter in module.parameters())
    assert 24 * size == pytest.approx(201.6e6, rel=0.005)


def test_the_released_enhancer_starts_as_published():
    mlp = multiway._mlp(torch.empty(1, 64))
    for layer in (mlp["first"], mlp["last"]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not torch.count_nonzero(layer.bias)


def test_a_copy_reads_its_own_stream():
    _, model, attached, _ = shaken(uniadapter, EQUAL, rank=4, norm="own")
    pictures, _ = tiny.batch(tiny.build())
    copied = copy.deepcopy(model)
    with torch.no_grad():
        before = copied.encode_image(pictures)
        for parameter in attached.parameters():
            parameter.zero_()
        model.encode_image(torch.zeros_like(pictures))
        assert torch.equal(copied.encode_image(pictures), before)
        assert not torch.equal(model.encode_image(pictures), before)
    assert models.weights_hash(copied.state_dict()) != models.weights_hash(model.state_dict())


def test_elements_are_dropped_while_training_alone():
    _, model, _, _ = shaken(multiway, EQUAL, rank=400, drop=0.25, enhancer="none")
    branch = block_of(model, "image").mlp.c_proj.adapter
    seen = []
    branch.up.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    x = torch.randn(2, 5, 32)
    branch.eval()(x)
    branch.train()(x)
    whole, dropped = seen
    ratio = (dropped / whole)[whole > 0]
    assert set(ratio.mul(3).round().tolist()) == {0.0, 4.0}
    assert (ratio == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
