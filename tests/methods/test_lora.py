import collections
import copy

import open_clip
import pytest
import tiny
import torch

from radapter import models
from radapter.errors import BrokenInput
from radapter.methods import lora

BLOCKS = [f"{t}transformer.resblocks.{i}" for t in ("visual.", "") for i in (0, 1)]
WEIGHTS = [
    "attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight",
]  # fmt: skip


@pytest.fixture
def loaded(tiny_folder):
    return models.load(tiny_folder)


def fill(attached, seed=0, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("block", ["default", "custom"])
def test_every_change_is_in_the_path_of_its_own_tower(custom, block):
    # A custom block has open_clip's own attention class.
    kind = {"block_type": block}
    loaded = tiny.build(custom=custom, vision={**tiny.VISION, **kind}, text=kind)
    own = sum(type(m) is open_clip.transformer.Attention for m in loaded.model.modules())
    assert own == (4 if block == "custom" else 0)
    images, tokens = tiny.batch(loaded)
    attached = lora.attach(loaded.model, rank=2)
    torch.manual_seed(0)
    text = "text." if custom else ""
    blocks = [name if name.startswith("visual.") else text + name for name in BLOCKS]
    assert list(attached.modules) == [f"{block}.{place}" for block in blocks for place in WEIGHTS]
    for name, change in attached.modules.items():
        for part in range(len(change.up)):
            for training in (False, True):
                loaded.model.train(training)
                with torch.no_grad():
                    before = tiny.features(loaded.model, images, tokens)
                    change.up[part].normal_()
                    moved = (tiny.features(loaded.model, images, tokens) - before).abs()
                    change.up.zero_()
                own, other = moved[:3].amax(), moved[3:].amax()
                if not name.startswith("visual."):
                    own, other = other, own
                assert own > 1e-4, (name, part, training)
                assert other == 0, (name, part, training)


def test_merged_weights_are_the_sum_by_hand(loaded):
    """Query, key and value have factors of their own."""
    base = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    attached = lora.attach(loaded.model, rank=2, scale=0.5)
    fill(attached)
    merged = lora.merge(base, attached.stored(), 0.7)
    name = f"{BLOCKS[0]}.attn.in_proj_weight"
    change = attached.modules[name]
    for part in range(3):
        product = change.up[part].double() @ change.down[part].double()
        rows = slice(32 * part, 32 * (part + 1))
        expected = base[name][rows].double() + 0.7 * 0.5 * product
        torch.testing.assert_close(merged[name][rows].double(), expected, rtol=0, atol=1e-6)
    changed = {n for n in base if not torch.equal(merged[n], base[n])}
    assert changed == set(attached.modules)
    at_zero = lora.merge(base, attached.stored(), 0.0)
    assert all(torch.equal(at_zero[n], base[n]) for n in base)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_each_weight_is_formed_once_in_a_forward_pass(loaded, training):
    """nn.MultiheadAttention reads its weight three times."""
    attached = lora.attach(loaded.model, rank=2)
    loaded.model.train(training)
    formed = collections.Counter()
    for name, change in attached.modules.items():
        change.register_forward_hook(lambda m, i, o, name=name: formed.update([name]))
    tiny.features(loaded.model, *tiny.batch(loaded)).sum().backward()
    formed["transformer.resblocks.0.mlp.c_fc.weight"] -= 1  # open_clip asks it for its dtype
    assert formed == dict.fromkeys(attached.modules, 1)


def test_the_start_is_drawn_on_the_cpu_whatever_the_device(loaded):
    """The meta device stands for one with random numbers of its own: the CPU's go on the same."""
    ends = []
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        lora.attach(copy.deepcopy(loaded.model).to(device), rank=2)
        ends.append(torch.get_rng_state())
    torch.manual_seed(0)
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], torch.get_rng_state())


def test_only_factors_train(loaded):
    attached = lora.attach(loaded.model, rank=2)
    images, tokens = tiny.batch(loaded)
    fill(attached)
    tiny.features(loaded.model, images, tokens).square().sum().backward()
    trained = list(attached.parameters())
    assert all(p.grad is not None for p in trained)
    others = {id(p) for p in trained}
    assert not any(p.requires_grad for p in loaded.model.parameters() if id(p) not in others)
    # r (in + out) for each of query, key, value, output and the two layers of the MLP
    expected = sum(2 * 2 * (3 * 2 * d + 2 * d + 2 * (d + 4 * d)) for d in (32, 16))
    assert sum(p.numel() for p in trained) == expected


def test_towers(loaded):
    assert all(n.startswith("visual.") for n in lora.attach(loaded.model, towers="image").modules)


def test_a_damaged_or_foreign_adapter_is_refused(loaded):
    base = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    stored = lora.attach(loaded.model, rank=2).stored()
    lacking = {n: v for n, v in stored.items() if not n.endswith("c_fc.weight.down")}
    with pytest.raises(BrokenInput, match=r"c_fc\.weight"):
        lora.merge(base, lacking, 0.5)
    with pytest.raises(BrokenInput, match="another shape"):
        lora.merge(tiny.build(text={"width": 32}).model.state_dict(), stored, 0.5)
    fewer = {n: v for n, v in base.items() if "resblocks.1" not in n}
    with pytest.raises(BrokenInput, match=r"resblocks\.1"):
        lora.merge(fewer, stored, 0.5)
