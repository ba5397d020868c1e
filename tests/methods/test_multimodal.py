"""UniAdapter in CoCa's text decoder: its formulas layer by layer against numpy, what is shared, and
what holds for every method, for a model that reads pictures and texts together."""

import copy
import itertools

import architectures
import numpy as np
import open_clip
import pytest
import tiny
import torch

from methods.test_branches import affine, layer_norm
from radapter.errors import UsageError
from radapter.methods import uniadapter
from radapter.methods.blocks import tower_of
from radapter.models.matching import last_tokens, match_logits, of_pictures, of_texts
from radapter.registry import Average

EQUAL = tiny.COCA | {"vision": tiny.COCA["vision"] | {"width": 16}}
CASES = [pytest.param(own, id=f"{n}") for n, own in enumerate(uniadapter.WITH_DECODER)]


def attached_to(settings, sizes=tiny.COCA, seed=0, **average):
    loaded = tiny.build(**sizes)
    torch.manual_seed(1 + seed)
    own = settings | {"average": Average(**{"momentum": 0.0, **average})}
    attached = uniadapter.attach(loaded.model, **own)
    loaded.model.eval()
    return loaded, attached


def shake(attached, seed=0, size=0.2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def logits(loaded, head=None, cut=True):
    """Of three pictures with a text each."""
    pictures, tokens = tiny.batch(loaded)
    model = loaded.model
    if head is not None:
        model.matching = head
        model.requires_grad_(False)  # torch rounds otherwise with gradients
    last = last_tokens(model, tokens)
    with torch.no_grad():
        (_, seen), (_, read) = of_pictures(model, pictures), of_texts(model, tokens)
        return match_logits(model, seen, read[:, : int(last.max()) + 1] if cut else read, last)


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("norm", ["own", "block"])
@pytest.mark.parametrize("sizes", [EQUAL, tiny.COCA], ids=["shared", "factored"])
def test_a_layer_of_the_decoder(sizes, norm):
    plain = tiny.build(**sizes).model
    loaded, attached = attached_to(
        {"rank": 4, "scale": 0.3, "norm": norm, "init": "upstream", "multimodal": True}, sizes
    )
    shake(attached)
    stored = {name: value.double().numpy() for name, value in attached.stored().items()}
    generator = torch.Generator().manual_seed(3)
    x, seen = (torch.randn(3, n, 16, generator=generator) for n in (6, 5))
    mask = plain.text_decoder.attn_mask[:6, :6]
    text = "text.transformer.resblocks.1"

    def inside(after, read):
        h = read
        if norm == "own":
            place = "norm.1" if sizes is EQUAL else f"{text}.norm"
            h = layer_norm(after, stored[f"{place}.weight"], stored[f"{place}.bias"])
        if sizes is not EQUAL:
            h = affine(h, stored, f"{text}.enter")
        return np.maximum(affine(h, stored, "down.1"), 0)

    for kind, more in (("resblocks", (None, mask)), ("cross_attn", (seen, None))):
        before, now = (getattr(m.text_decoder, kind)[1] for m in (plain, loaded.model))
        key, own_mask = more
        with torch.no_grad():
            found = now(x, k_x=key, v_x=key, attn_mask=own_mask)
            read = before.ln_1_kv(key) if key is not None else None
            after = x + before.attention(before.ln_1(x), read, read, own_mask)
            expected = before(x, k_x=key, v_x=key, attn_mask=own_mask).double().numpy()
            h = inside(after.double().numpy(), before.ln_2(after).double().numpy())
        added = affine(h, stored, f"{text}.up")
        if key is not None:
            name = "text_decoder.cross_attn.1"
            behind = [stored[f"{name}.norm_of_sum.{part}"] for part in ("weight", "bias")]
            added = layer_norm(added + affine(h, stored, f"{name}.up"), *behind)
        np.testing.assert_allclose(found, expected + 0.3 * added, rtol=1e-4, atol=1e-5)
        assert np.abs(added).max() > 0.1


def test_the_head_reads_the_last_token_and_what_stands_behind_it_changes_nothing():
    loaded, attached = attached_to(uniadapter.WITH_DECODER[1])
    shake(attached)
    model, (pictures, tokens) = loaded.model, tiny.batch(loaded)
    short = logits(loaded)
    torch.testing.assert_close(logits(loaded, cut=False), short, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        _, seen = of_pictures(model, pictures)
        _, read = of_texts(model, tokens)
        decoder, taken = model.text_decoder, []
        decoder.ln_final.register_forward_hook(lambda module, inputs, out: taken.append(out))
        decoder(seen, read)  # open_clip's own, all tokens
    states = taken[0].double().numpy()
    ends = [int(row.argmax()) for row in tokens]  # the token of the end has the largest number
    stored = {name: value.double().numpy() for name, value in attached.stored().items()}
    expected = affine(np.stack([states[i, end] for i, end in enumerate(ends)]), stored, "matching")
    np.testing.assert_allclose(short, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", CASES)
def test_it_starts_at_the_base_model_s_decoder(settings):
    loaded, _ = attached_to(settings)
    head = loaded.model.matching
    base = logits(tiny.build(**tiny.COCA), copy.deepcopy(head))
    same = torch.equal(logits(loaded, head), base)
    assert same is ("init" not in settings)


def test_it_starts_as_published():
    """trunc-normal of 0.02 in the image tower and behind cross-attention, zero in texts."""
    wide = tiny.COCA["vision"] | {"width": 64}
    _, attached = attached_to(
        {"rank": 64, "init": "upstream", "multimodal": True}, tiny.COCA | {"vision": wide}
    )
    stored = attached.stored()
    ups = {n: t for n, t in stored.items() if ".up." in n}
    drawn = {n for n, t in ups.items() if torch.count_nonzero(t)}
    assert drawn == {n for n in ups if n.endswith("weight") and not n.startswith("text.")}
    for name in drawn:
        assert ups[name].std().item() == pytest.approx(0.02, rel=0.1), name
    for name in (n for n in stored if "norm_of_sum" in n):
        assert torch.equal(stored[name], torch.full_like(stored[name], name.endswith("weight")))


# ---------------------------------------------------------------- what is trained


def coca(vision, text, layers, width_of_features):
    with torch.device("meta"):
        return open_clip.CoCa(
            width_of_features,
            {"context_length": 8, "width": text, "heads": 8, "layers": layers},
            {"context_length": 8, "vocab_size": 9, "width": text, "heads": 8, "layers": layers,
             "embed_cls": True, "output_tokens": True},
            {"image_size": 32, "layers": layers, "width": vision, "patch_size": 16,
             "output_tokens": True, "attentional_pool": True, "attn_pooler_heads": 8},
        )  # fmt: skip


@pytest.mark.parametrize(("rank", "published"), [(128, 4.8e6), (512, 19e6)])
def test_parameters_at_the_published_widths(rank, published):
    """Twelve layers of 768: one down projection, three up projections and two norms in each."""
    layers, width = 12, 768
    model = coca(width, width, layers, width)
    attached = uniadapter.attach(model, rank=rank, norm="own", multimodal=True)
    head = sum(p.numel() for p in model.matching.parameters())
    ours = sum(p.numel() for p in attached.parameters()) - head
    assert head == 2 * width + 2
    assert ours == layers * (4 * rank * width + rank + 3 * width + 4 * width)
    assert ours == pytest.approx(published, rel=0.005)


def test_parameters_of_the_shipped_recipes():
    """coca_ViT-B-32, whose towers have other widths: each has a matrix and a norm of its own."""
    rank, image, text = 512, 768, 512
    attached = uniadapter.attach(
        coca(image, text, 12, text), rank=rank, norm="own", multimodal=True
    )
    ups = (rank + 1) * (image + text + text)
    norms = 2 * (image + text + text)
    layer = rank * rank + rank + rank * (image + text) + ups + norms
    assert sum(p.numel() for p in attached.parameters()) == 12 * layer + 2 * text + 2


@pytest.mark.parametrize("sizes", [EQUAL, tiny.COCA], ids=["shared", "factored"])
def test_what_is_shared_is_stored_once_and_learns_from_every_branch(sizes):
    loaded, attached = attached_to(uniadapter.WITH_DECODER[1], sizes)
    shake(attached, size=0.5)
    assert len({id(p) for p in attached.parameters()}) == len(attached.stored())
    assert attached.towers() == {"image", "text"}
    outside = {n for n in attached.trained if n.startswith(("text_decoder", "matching"))}
    assert all(tower_of(loaded.model, name) is None for name in outside)
    model, (pictures, tokens) = loaded.model, tiny.batch(loaded)
    _, seen = of_pictures(model, pictures)
    _, read = of_texts(model, tokens)
    last = last_tokens(model, tokens)
    found = match_logits(model, seen.detach(), read.detach(), last)
    down = [p for name, p in attached.trained.items() if name.startswith("down.")]
    for features in (seen, read, found):
        gradients = torch.autograd.grad(features.square().sum(), down, retain_graph=True)
        assert all(torch.count_nonzero(gradient) for gradient in gradients)
    of_texts_alone = attached.trained["text.transformer.resblocks.0.up.weight"]
    (gradient,) = torch.autograd.grad(found.square().sum(), [of_texts_alone])
    assert torch.count_nonzero(gradient)


# ---------------------------------------------------------------- what holds for every method


@pytest.mark.parametrize("settings", CASES)
def test_alpha_leads_from_the_base_model_to_what_was_kept(settings):
    loaded, attached = attached_to(settings, momentum=0.5)
    for step in range(3):
        shake(attached, step)
        attached.update_average()
    stored, now = attached.stored(), logits(loaded)
    base = tiny.build(**tiny.COCA)
    found = []
    for alpha in (0.0, 0.5, 1.0):
        with attached.at(alpha):
            found.append(logits(loaded))
            if not alpha:
                head = copy.deepcopy(loaded.model.matching)
        other, again = attached_to(settings, seed=5)
        again.load_stored(stored, alpha)
        if alpha:
            torch.testing.assert_close(logits(other), found[-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], logits(base, head), rtol=1e-6, atol=1e-6)
    assert all((one - two).abs().max() > 1e-3 for one, two in itertools.pairwise(found))
    assert torch.equal(logits(loaded), now)
    assert (found[2] - now).abs().max() > 1e-4  # the average is not the last value


@pytest.mark.parametrize("settings", CASES)
def test_state_comes_back_whole(settings):
    _, one = attached_to(settings, momentum=0.8)
    for step in range(3):
        shake(one, step)
        one.update_average()
    _, two = attached_to(settings, seed=1, momentum=0.8)
    two.load_state({key: value.clone() for key, value in one.state().items()})
    for attached in (one, two):
        shake(attached, 9)
        attached.update_average()
    for ours, theirs in ((one.state(), two.state()), (one.stored(), two.stored())):
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_copy_runs_its_own_adapters():
    loaded, attached = attached_to(uniadapter.WITH_DECODER[1])
    shake(attached)
    before = logits(loaded)
    copied = copy.deepcopy(loaded)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.zero_()
    assert torch.equal(logits(copied), before)
    assert not logits(loaded).any()


def test_activations_computed_again_give_the_same_gradients():
    found = []
    for again in (False, True):
        loaded, attached = attached_to(uniadapter.WITH_DECODER[1])
        shake(attached)
        model, (pictures, tokens) = loaded.model.train(), tiny.batch(loaded)
        if again:
            model.set_grad_checkpointing(True)
        _, seen = of_pictures(model, pictures)
        _, read = of_texts(model, tokens)
        match_logits(model, seen, read, last_tokens(model, tokens)).square().sum().backward()
        found.append([p.grad for p in attached.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


# ---------------------------------------------------------------- where it does not fit


def test_a_model_without_a_decoder_is_refused():
    with pytest.raises(UsageError, match="needs a text decoder with cross-attention, as CoCa has"):
        uniadapter.attach(tiny.build().model, multimodal=True)
    with pytest.raises(UsageError, match=r"method.towers is image: set method.towers=both"):
        uniadapter.attach(tiny.build(**tiny.COCA).model, multimodal=True, towers="image")


def test_a_text_tower_that_is_not_causal_is_refused(tmp_path, monkeypatch):
    model = architectures.Small(tmp_path, monkeypatch).load("coca_roberta-ViT-B-32").model
    with pytest.raises(UsageError, match="needs a causal text tower.*this one is a HFTextEncoder"):
        uniadapter.attach(model, multimodal=True)


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "coca_ViT-L-14", "coca_base"])
def test_every_coca_of_open_clip_has_the_places(tmp_path, monkeypatch, name):
    loaded = architectures.Small(tmp_path, monkeypatch).load(name)
    attached = uniadapter.attach(loaded.model, rank=2, multimodal=True)
    shake(attached)
    height, width = loaded.model.visual.image_size
    tokens = loaded.tokenizer(architectures.TEXTS)
    model = loaded.model
    _, seen = of_pictures(model, torch.randn(3, 3, height, width))
    _, read = of_texts(model, tokens)
    match_logits(model, seen, read, last_tokens(model, tokens)).square().sum().backward()
    reached = [n for n, p in attached.trained.items() if p.grad is not None]
    assert {n.partition(".")[0] for n in reached} >= {"down", "text", "text_decoder", "matching"}
