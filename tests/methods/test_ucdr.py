"""UCDR-Adapter's prompts, context and generator against NumPy, and what cannot be attached."""

import copy
import math

import numpy as np
import open_clip
import pytest
import tiny
import torch

from radapter import models, registry
from radapter.errors import UsageError
from radapter.methods.batch_rows import column, of_frames, rows
from radapter.models.patches import has_patches
from radapter.registry import METHODS

KNOWN = {"groups": torch.tensor([1, 0, 3, -1]), "domains": torch.tensor([1, 0, 1, -1])}
ROWS = {"domains": 2, "classes": 4}


def attached_to(name, **settings):
    loaded = tiny.build()
    torch.manual_seed(4)
    attached = registry.load(METHODS, name).attach(
        loaded.model, **{**ROWS, "context": 0, **settings}
    )
    with torch.no_grad():
        for parameter in attached.values().values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return loaded, attached


def pictures():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def features(loaded, known=None):
    with torch.no_grad(), rows(0, 4, known or {}):
        return loaded.model.encode_image(pictures()).double().numpy()


# ------------------------------------------------------------------ the tower in NumPy


def weights_of(model):
    return {name: t.detach().double().numpy() for name, t in model.visual.state_dict().items()}


def norm(x, w, name):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def patches_of(w):
    """[4 pictures, 4 patches, 32] with their places; a patch has 16 x 16 pixels."""
    cut = pictures().double().numpy().reshape(4, 3, 2, 16, 2, 16).transpose(0, 2, 4, 1, 3, 5)
    flat = cut.reshape(4, 4, -1) @ w["conv1.weight"].reshape(32, -1).T
    return flat + w["positional_embedding"][1:]


def blocks(x, w, bias=0.0):
    """Two layers of two heads, what is added to scores in `bias` [tokens]; behind the last norm."""
    x = norm(x, w, "ln_pre")
    for n in range(2):
        at = f"transformer.resblocks.{n}"
        y = norm(x, w, f"{at}.ln_1") @ w[f"{at}.attn.in_proj_weight"].T
        q, k, v = np.split(y + w[f"{at}.attn.in_proj_bias"], 3, axis=-1)
        heads = []
        for own in (slice(0, 16), slice(16, 32)):
            scores = q[..., own] @ k[..., own].swapaxes(1, 2) / 4 + bias
            heads.append(softmax(scores) @ v[..., own])
        out = np.concatenate(heads, -1) @ w[f"{at}.attn.out_proj.weight"].T
        x = x + out + w[f"{at}.attn.out_proj.bias"]
        y = norm(x, w, f"{at}.ln_2") @ w[f"{at}.mlp.c_fc.weight"].T + w[f"{at}.mlp.c_fc.bias"]
        y = 0.5 * y * (1 + torch.erf(torch.from_numpy(y / math.sqrt(2))).numpy())
        x = x + y @ w[f"{at}.mlp.c_proj.weight"].T + w[f"{at}.mlp.c_proj.bias"]
    return norm(x, w, "ln_post")


def with_class(token, w, *more):
    first = np.broadcast_to(token + w["positional_embedding"][0], (4, 1, 32))
    return np.concatenate([first, *more], axis=1)


# ------------------------------------------------------------------ the first phase


@pytest.mark.parametrize("output", ["class-token", "first-prompt"])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_prompts_by_hand(output, length, known):
    """The rows of each picture's domain and class, or the mean of all rows, at two alphas."""
    loaded, attached = attached_to("ucdr-prompts", length=length, output=output)
    w = weights_of(loaded.model)
    of = {"domains": w["prompts.domains"], "classes": w["prompts.classes"]}
    chosen = []
    for bank, places in zip(of.values(), (KNOWN["domains"], KNOWN["groups"]), strict=True):
        mean = bank.mean(axis=0)
        chosen.append(np.stack([bank[i] if known and i >= 0 else mean for i in places.tolist()]))
    x = with_class(w["class_embedding"], w, *chosen, patches_of(w))
    place = 0 if output == "class-token" else 1
    for alpha in (1.0, 0.4):
        bias = np.zeros(x.shape[1])
        bias[1 : 1 + 2 * length] = math.log(alpha)
        states = blocks(x, w, bias)
        with attached.at(alpha):
            found = features(loaded, KNOWN if known else None)
        if place and alpha < 1:  # mixed before the norm: tested at 1 alone
            continue
        np.testing.assert_allclose(found, states[:, place] @ w["proj"], atol=1e-5)


def test_where_prompts_start():
    """Uniform in +- sqrt(6 / (3 p^2 + width)), as published; the context normal, 0.02."""
    visual = {**tiny.VISION, "width": 64, "patch_size": 8}
    loaded = tiny.build(vision=visual)
    attached = registry.load(METHODS, "ucdr-prompts").attach(
        loaded.model, domains=30, classes=30, context=50
    )
    most = math.sqrt(6 / (3 * 64 + 64))
    for name in ("domains", "classes"):
        bank = attached.trained[f"visual.prompts.{name}"]
        assert bank.abs().max() <= most
        assert bank.std().item() == pytest.approx(most / math.sqrt(3), rel=0.05)
    context = attached.trained["token_embedding.context.vectors"]
    assert context.shape == (50, 16)
    assert context.std().item() == pytest.approx(0.02, rel=0.1)


# ------------------------------------------------------------------ the second phase


@pytest.mark.parametrize("mask", ["attention", "zero", "none"])
@pytest.mark.parametrize("query", ["class-token", "first-patch"])
@pytest.mark.parametrize("known", [True, False])
def test_made_prompts_by_hand(mask, query, known):
    settings = {"temperature": 0.5, "divisor": 3.0, "length": 2, "mask": mask, "query": query}
    loaded, _ = attached_to("ucdr-adapter", **settings)
    w = weights_of(loaded.model)

    def linear(x, name):
        return x @ w[f"prompts.{name}.weight"].T + w[f"prompts.{name}.bias"]

    patches = patches_of(w)
    first = with_class(w["class_embedding"], w, patches) if query == "class-token" else patches
    asked = linear(blocks(first, w)[:, 0], "of_picture")
    made = []
    for name, places in (("domains", KNOWN["domains"]), ("classes", KNOWN["groups"])):
        bank, prompts = w[f"prompts.{name}"], []
        for picture, own in zip(asked, places.tolist(), strict=True):
            seen = [
                0.0 * prompt if row == own and mask == "zero" and known else prompt
                for row, of_row in enumerate(bank)
                for prompt in of_row
                if not (row == own and mask == "attention" and known)
            ]
            keys = linear(np.stack(seen), "of_prompt")
            u = softmax(keys @ picture / 0.5) @ keys
            prompts.append((u + norm(linear(u, "out"), w, "prompts.norm")) / 3.0)
        made.append(np.stack(prompts)[:, None])
    x = with_class(w["prompts.class_embedding"], w, *made, patches)
    wanted = blocks(x, w)[:, 0] @ w["prompts.proj"]
    np.testing.assert_allclose(features(loaded, KNOWN if known else None), wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("mask", "changes"), [("attention", False), ("zero", False), ("none", True)]
)
def test_a_masked_row_is_not_looked_at(mask, changes):
    """What a picture's own domain and class have learned changes nothing in training, but at
    inference."""
    loaded, attached = attached_to("ucdr-adapter", mask=mask)
    known = {"groups": torch.tensor([1] * 4), "domains": torch.tensor([0] * 4)}
    before = features(loaded, known), features(loaded)
    values = attached.values()
    with torch.no_grad():
        values["visual.prompts.classes"][1] += 3.0
        values["visual.prompts.domains"][0] += 3.0
    after = features(loaded, known), features(loaded)
    assert bool(np.abs(after[0] - before[0]).max() > 1e-3) is changes
    assert np.abs(after[1] - before[1]).max() > 1e-3


def test_a_bank_of_one_row_is_not_masked():
    loaded, _ = attached_to("ucdr-adapter", domains=1)
    found = features(loaded, {**KNOWN, "domains": torch.zeros(4, dtype=torch.int64)})
    assert np.isfinite(found).all()
    unknown = {"groups": KNOWN["groups"]}
    np.testing.assert_allclose(found, features(loaded, unknown), atol=1e-6)


def test_alpha_mixes_class_token_and_projection_with_the_towers():
    loaded, attached = attached_to("ucdr-adapter")
    visual = loaded.model.visual
    with attached.at(0.25):
        for mixed, own, tuned in (
            (visual.prompts.class_token(visual), visual.class_embedding, "class_embedding"),
            (visual.prompts.projection(visual), visual.proj, "proj"),
        ):
            learned = getattr(visual.prompts, tuned)
            torch.testing.assert_close(mixed, 0.75 * own + 0.25 * learned)


def test_as_many_parameters_as_published():
    """2.17 million of ViT-B/32 in the second phase."""
    with torch.device("meta"):
        model = open_clip.create_model("ViT-B-32", device="meta")
    model = model.to_empty(device="cpu")
    attached = registry.load(METHODS, "ucdr-adapter").attach(model, domains=5, classes=245)
    assert sum(p.numel() for p in attached.parameters()) == 2_167_296
    kept = sum(v.numel() for v in attached.stored().values())
    assert kept == 2_167_296 + 250 * 768 + 16 * 512


# ------------------------------------------------------------------ the context of texts


@pytest.mark.parametrize("custom", [False, True])
def test_the_context_stands_in_texts_by_hand(custom):
    loaded = tiny.build(custom=custom)
    attached = registry.load(METHODS, "ucdr-prompts").attach(loaded.model, context=3)
    (name,) = [name for name in attached.trained if "context" in name]
    assert name == ("text." if custom else "") + "token_embedding.context.vectors"
    assert attached.towers() == {"image", "text"}
    plain = tiny.build(custom=custom).model
    table = plain.text.token_embedding if custom else plain.token_embedding
    vectors = attached.trained[name]
    tokens = loaded.tokenizer(["a cat from $ $ $ domain", "no context", "$ $ $ $"])
    words = table(tokens).detach().clone()
    for row, places in ((0, (4, 5, 6)), (2, (1, 2, 3))):
        words[row, list(places)] = vectors.detach()
    words[2, 4] = vectors[2].detach()  # one place too many has the last
    with torch.no_grad():
        wanted = models.encode_text(plain, tokens, words)
        for encode in (loaded.model.encode_text, lambda t: models.encode_text(loaded.model, t)):
            torch.testing.assert_close(encode(tokens), wanted, rtol=1e-5, atol=1e-5)
        with attached.at(0.0):
            zero_shot = models.encode_text(plain, tokens)
            torch.testing.assert_close(models.encode_text(loaded.model, tokens), zero_shot)
        half = torch.lerp(table(tokens), words, 0.5)
        with attached.at(0.5):
            found = models.encode_text(loaded.model, tokens)
            torch.testing.assert_close(found, models.encode_text(plain, tokens, half))


def test_a_copy_has_its_own_prompts_and_context():
    loaded, _ = attached_to("ucdr-prompts", context=2)
    twin = copy.deepcopy(loaded.model)
    tokens = loaded.tokenizer(["a $ $"])
    with torch.no_grad():
        for learned in (
            loaded.model.visual.prompts.domains,
            loaded.model.token_embedding.context.vectors,
        ):
            learned.add_(torch.randn_like(learned))
        of_both = [
            (m.encode_image(pictures()), m.encode_text(tokens)) for m in (twin, loaded.model)
        ]
    for one, two in zip(*of_both, strict=True):
        assert (one - two).abs().max() > 0.01


# ------------------------------------------------------------------ rows, and what does not fit


def test_columns_are_cut_to_the_rows_of_a_pass():
    known = {"domains": torch.arange(8)}
    assert column("domains", 3) is None
    with rows(2, 8, known):
        assert column("domains", 3).tolist() == [2, 3, 4]
        assert column("groups", 3) is None
        with of_frames(2):
            assert column("domains", 4).tolist() == [2, 2, 3, 3]
        with rows(0, 1):  # texts: nothing is known of them
            assert column("domains", 1) is None
        assert column("domains", 1).tolist() == [2]


@pytest.mark.parametrize("name", ["ucdr-prompts", "ucdr-adapter"])
def test_a_tower_without_place_for_prompts_is_refused(name):
    attach = registry.load(METHODS, name).attach
    for architecture, kind in (
        ("RN50", "ModifiedResNet"),
        ("ViT-B-16-SigLIP", "VisionTransformer"),
        ("coca_ViT-B-32", "VisionTransformer"),
    ):
        with torch.device("meta"):
            model = open_clip.create_model(architecture, device="meta")
        with pytest.raises(UsageError, match=f"{name} needs a ViT of open_clip's.*is a {kind}"):
            attach(model)


@pytest.mark.parametrize("template", ["a {}", "{} $ $", "{} {} $", "{} in $.", "$"])
def test_a_template_has_a_place_for_each(template):
    with pytest.raises(UsageError, match=r"needs one \{\} for the class and one \$ between"):
        attached_to("ucdr-prompts", template=template, context=2)


def test_patches_have_no_prompts():
    """Their features would be the zero-shot model's in silence."""
    loaded, _ = attached_to("ucdr-prompts")
    assert has_patches(tiny.build().model)
    assert not has_patches(loaded.model)
