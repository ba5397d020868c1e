import copy

import numpy as np
import open_clip
import pytest
import tiny
import torch

from radapter import models
from radapter.errors import BrokenInput, UsageError
from radapter.methods import r_adapter
from radapter.registry import AdapterAverage

LINEARS = [
    f"{tower}transformer.resblocks.{block}.{linear}"
    for tower in ("visual.", "")
    for block in (0, 1)
    for linear in ("attn.out_proj", "mlp.c_proj")
]
WIDTHS = [32] * 4 + [16] * 4


def fill(attached, seed=0, size=0.1):
    """Give every trained tensor a random value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


def filled(loaded, size=0.1, **settings):
    """Attached, with random adapters that the average holds too."""
    attached = r_adapter.attach(loaded.model, average=AdapterAverage(momentum=0.0), **settings)
    fill(attached, size=size)
    attached.update_average()
    return attached


@pytest.fixture
def loaded(tiny_folder):
    return models.load(tiny_folder)


# ------------------------------------------------------------------ attaching


@pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("block", ["default", "custom"])
def test_every_adapter_is_in_the_path_of_its_own_tower(custom, block):
    """In training, in evaluation, with and without gradients: nn.MultiheadAttention never calls
    its out_proj, and takes another path in evaluation."""
    # A custom block has open_clip's own attention class.
    kind = {"block_type": block}
    loaded = tiny.build(custom=custom, vision={**tiny.VISION, **kind}, text=kind)
    own = sum(type(m) is open_clip.transformer.Attention for m in loaded.model.modules())
    assert own == (4 if block == "custom" else 0)
    images, tokens = tiny.batch(loaded)
    loaded.model.requires_grad_(False)
    attached = r_adapter.attach(loaded.model, drop=0.0)
    torch.manual_seed(0)
    text = "text." if custom else ""
    names = [n if n.startswith("visual.") else text + n for n in LINEARS]
    assert list(attached.modules) == names
    for name in names:
        for training in (False, True):
            for gradients in (False, True):
                loaded.model.train(training)
                with torch.set_grad_enabled(gradients):
                    before = tiny.features(loaded.model, images, tokens)
                    with torch.no_grad():
                        attached.modules[name].weight.normal_(std=0.3)
                    change = (tiny.features(loaded.model, images, tokens) - before).abs()
                with torch.no_grad():
                    attached.modules[name].weight.zero_()
                of_images, of_texts = change[:3].amax(), change[3:].amax()
                own, other = (
                    (of_images, of_texts) if name.startswith("visual.") else (of_texts, of_images)
                )
                assert own > 1e-3, (name, training, gradients)
                assert other == 0, (name, training, gradients)


def test_only_adapters_train_and_all_of_them_do(loaded):
    images, tokens = tiny.batch(loaded)
    attached = r_adapter.attach(loaded.model, learn_scale=True)
    fill(attached)
    loaded.model.train()
    tiny.features(loaded.model, images, tokens).square().sum().backward()
    assert not any(p.requires_grad or p.grad is not None for p in loaded.model.parameters())
    dropped = [p for p in attached.parameters() if p.grad is None]
    assert not dropped
    attached_again = r_adapter.attach(tiny.build().model, drop=0.0)
    fill(attached_again)
    assert all(p.requires_grad for p in attached_again.parameters())


def test_the_model_keeps_its_own_state_dict(loaded):
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    filled(loaded)
    after = loaded.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 12 * 2 * (768**2 + 512**2)),
        ({"learn_scale": True}, 12 * 2 * (768**2 + 512**2) + 48),
        ({"towers": "image"}, 12 * 2 * 768**2),
        ({"towers": "text"}, 12 * 2 * 512**2),
        ({"rank": 4}, 12 * 2 * 2 * 4 * (768 + 512)),
        ({"rank": 768, "towers": "image"}, 12 * 2 * 2 * 768 * 768),
    ],
)
def test_trainable_parameters_of_vit_b_16(settings, expected):
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
        attached = r_adapter.attach(model, **settings)
    assert sum(p.numel() for p in attached.parameters()) == expected
    assert 12 * 2 * (768**2 + 512**2) == 20_447_232
    assert sum(p.numel() for p in model.parameters()) == 149_620_737


@pytest.mark.parametrize("towers", ["image", "text", "both"])
def test_towers_are_chosen(loaded, towers):
    attached = r_adapter.attach(loaded.model, towers=towers)
    expected = {"image": LINEARS[:4], "text": LINEARS[4:], "both": LINEARS}[towers]
    assert list(attached.modules) == expected


def resnet():
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    return tiny.build(vision=vision).model


@pytest.mark.parametrize("towers", ["image", "both"])
def test_a_tower_without_blocks_is_named(towers):
    with pytest.raises(UsageError, match=r"image tower .* ModifiedResNet, has none.*towers=text"):
        r_adapter.attach(resnet(), towers=towers)


def test_a_resnet_can_have_its_text_tower_adapted():
    assert list(r_adapter.attach(resnet(), towers="text").modules) == LINEARS[4:]


# ------------------------------------------------------------------ dropping


def adapter(unit="adapter", drop=0.2, width=4):
    made = r_adapter.Adapter(
        width, None, drop=drop, drop_unit=unit, scale=0.7, learn_scale=False
    ).train()
    with torch.no_grad():
        made.weight.copy_(torch.randn(width, width, generator=torch.Generator().manual_seed(1)))
    return made


def by_hand(made, z):
    return z.numpy() + 0.7 * z.numpy() @ made.weight.detach().numpy().T


@pytest.mark.parametrize("unit", ["adapter", "sample", "position"])
def test_dropping_keeps_the_mean_and_is_off_in_evaluation(unit):
    torch.manual_seed(0)
    made, z = adapter(unit), torch.randn(2, 3, 4)
    full = torch.from_numpy(by_hand(made, z))
    with torch.no_grad():
        draws = torch.stack([made(z) for _ in range(6000)])
        made.eval()
        assert all(torch.allclose(made(z), full, atol=1e-6) for _ in range(20))
    change, kept = draws - z, z + (full - z) / 0.8
    is_kept = torch.isclose(draws, kept, atol=1e-5).all(-1)
    is_dropped = (draws == z).all(-1)
    assert (is_kept ^ is_dropped).all()
    # The share that is kept has a standard deviation of sqrt(.2 * .8 / 6000) = 0.0052.
    assert (is_kept.float().mean(0) - 0.8).abs().max() < 0.024
    assert (change.mean(0) - (full - z)).abs().max() < 0.03 * (full - z).abs().max()


@pytest.mark.parametrize(
    ("unit", "constant_over"), [("adapter", (0, 1)), ("sample", (1,)), ("position", (0,))]
)
def test_what_one_draw_covers(unit, constant_over):
    torch.manual_seed(0)
    made, z = adapter(unit, drop=0.5), torch.randn(6, 5, 4)
    with torch.no_grad():
        kept = torch.stack([(made(z) != z).any(-1) for _ in range(200)])  # [draws, batch, tokens]
    assert kept.any()
    assert not kept.all()
    for dim in (0, 1):
        varies = bool((kept.amax(dim + 1) != kept.amin(dim + 1)).any())
        assert varies == (dim not in constant_over), dim


def test_adapters_see_batch_then_tokens(loaded):
    """`sample` and `position` rest on it."""
    attached = r_adapter.attach(loaded.model)
    seen = {}
    for name, made in attached.modules.items():
        made.register_forward_hook(lambda m, i, o, name=name: seen.update({name: i[0].shape}))
    images, tokens = tiny.batch(loaded)
    with torch.no_grad():  # with gradients, layer and adapter are one
        tiny.features(loaded.model, images, tokens)
    assert [tuple(seen[name]) for name in LINEARS] == [(3, 5, 32)] * 4 + [(3, 77, 16)] * 4


def test_each_adapter_draws_for_itself(loaded):
    attached = r_adapter.attach(loaded.model, drop=0.5)
    fill(attached)
    loaded.model.train()
    images, tokens = tiny.batch(loaded)
    kept = {name: [] for name in LINEARS}
    for name, made in attached.modules.items():
        made.register_forward_hook(
            lambda m, i, o, name=name: kept[name].append(bool((o != i[0]).any()))
        )
    with torch.no_grad():
        for _ in range(20):
            tiny.features(loaded.model, images, tokens)
    assert len({tuple(draws) for draws in kept.values()}) == len(LINEARS)


def test_a_model_in_evaluation_never_drops(loaded):
    attached = filled(loaded, drop=0.9)
    images, tokens = tiny.batch(loaded)
    first = tiny.features(loaded.model, images, tokens)
    assert all(torch.equal(tiny.features(loaded.model, images, tokens), first) for _ in range(5))
    loaded.model.train()
    assert not torch.equal(tiny.features(loaded.model, images, tokens), first)
    assert attached.parameters()


# ------------------------------------------------------------------ averaging


def test_the_share_of_the_zero_start_is_what_the_average_lacks(loaded):
    attached = r_adapter.attach(loaded.model, average=AdapterAverage(momentum=0.9))
    fill(attached)
    for _ in range(7):
        attached.update_average()
    assert attached.start_share == pytest.approx(0.9**7)
    value = attached.modules[LINEARS[0]].weight.detach()
    torch.testing.assert_close(
        attached.stored()[f"{LINEARS[0]}.delta"], (1 - attached.start_share) * value
    )


def test_mean_of_products_and_product_of_means(loaded):
    """Low rank with a learned s: each kind of average is its own definition, and they differ."""
    m, steps, results = 0.7, 6, {}
    for of in ("effective", "factors"):
        attached = r_adapter.attach(
            tiny.build().model,
            rank=2,
            scale=0.1,
            learn_scale=True,
            average=AdapterAverage(momentum=m, of=of),
        )
        starts = {n: (0.1, a.up.clone(), a.down.clone()) for n, a in attached.modules.items()}
        values = []
        for step in range(steps):
            fill(attached, seed=step, size=0.5)
            values.append(
                {n: (a.scale.item(), a.up.clone(), a.down.clone())
                 for n, a in attached.modules.items()}
            )  # fmt: skip
            attached.update_average()
        stored = attached.stored()
        results[of] = r_adapter.effective_matrices(stored)
        for name in LINEARS:
            trace = [starts[name], *(v[name] for v in values)]
            weights = [m**steps, *((1 - m) * m ** (steps - 1 - i) for i in range(steps))]
            pairs = list(zip(weights, trace, strict=True))
            if of == "effective":
                expected = sum(w * s * (u @ d) for w, (s, u, d) in pairs)
                assert f"{name}.delta" in stored
            else:
                s, u, d = (sum(w * t[i] for w, t in pairs) for i in range(3))
                expected = s * (u @ d)
                assert stored[f"{name}.up"].shape[1] == 2
                assert torch.linalg.matrix_rank(results[of][name]) <= 2
            torch.testing.assert_close(results[of][name], expected, rtol=1e-4, atol=1e-6)
    for name in LINEARS:
        assert (results["effective"][name] - results["factors"][name]).abs().max() > 1e-2


# ------------------------------------------------------------------ merging


def merged_model(base, stored, alpha):
    model = copy.deepcopy(base)
    model.load_state_dict(r_adapter.merge(base.state_dict(), stored, alpha))
    return model


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_the_fold_by_hand(loaded, alpha):
    base = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    attached = filled(loaded, scale=0.6)
    merged = r_adapter.merge(base, attached.stored(), alpha)
    touched = set()
    for name in LINEARS:
        w = attached.modules[name].weight.detach().double().numpy()
        fold = np.eye(len(w)) + alpha * 0.6 * w
        for end in ("weight", "bias"):
            original = base[f"{name}.{end}"].double().numpy()
            assert np.abs(original).max() > 0
            np.testing.assert_allclose(merged[f"{name}.{end}"], fold @ original, atol=1e-6)
            touched.add(f"{name}.{end}")
    assert list(merged) == list(base)
    assert all(torch.equal(merged[n], base[n]) for n in base if n not in touched)
    assert all(merged[n].dtype == base[n].dtype for n in base)


def test_alpha_zero_is_the_base_bit_for_bit(loaded):
    base, stored = loaded.model.state_dict(), filled(loaded).stored()
    base[f"{LINEARS[0]}.bias"][0] = -0.0  # adding zero would lose the sign
    stored[f"{LINEARS[1]}.delta"][0, 0] = float("inf")
    merged = r_adapter.merge(base, stored, 0.0)
    for name, value in base.items():
        assert merged[name].numpy().tobytes() == value.numpy().tobytes()
        assert merged[name].data_ptr() != value.data_ptr()


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_merging_is_an_ensemble_of_the_two_ends_in_weight_space(loaded, alpha):
    base, stored = loaded.model.state_dict(), filled(loaded, size=0.3).stored()
    ends = r_adapter.merge(base, stored, 1.0)
    for name, value in r_adapter.merge(base, stored, alpha).items():
        torch.testing.assert_close(
            value, (1 - alpha) * base[name] + alpha * ends[name], rtol=1e-6, atol=1e-6
        )


def test_an_adapter_of_another_model_is_refused(loaded):
    stored = {"visual.transformer.resblocks.9.mlp.c_proj.delta": torch.zeros(32, 32)}
    with pytest.raises(BrokenInput, match=r"another model.*resblocks\.9\.mlp\.c_proj"):
        r_adapter.merge(loaded.model.state_dict(), stored, 0.5)
    with pytest.raises(BrokenInput, match="no matrix"):
        r_adapter.merge(loaded.model.state_dict(), {f"{LINEARS[0]}.scale": torch.ones(())}, 0.5)
