"""The terms that train queries, against NumPy."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from a_batch import TEXTS, setting
from safetensors.torch import load_file

from radapter import models, registry
from radapter.errors import UsageError
from radapter.losses import entropy_weighted
from radapter.models.queries import query_features
from radapter.objectives.lincir import masked
from radapter.objectives.terms import Features
from radapter.registry import TERMS
from radapter.training import Interrupted, resume, train


@pytest.mark.parametrize(
    ("text", "runs", "wanted"),
    [
        ("Two green dogs on a very red sofa", "all", "$ on $ very $"),
        ("a dog, a cat and my sun-hat", "all", "$ , $ and my $"),
        ("a dog, a cat and my sun-hat", "but-last", "$ , $ and my sun-hat"),
        ("woman: curly hair", "all", "$ : $"),
        ("it costs 5$", "all", "it $"),
        ("", "all", "a photo of $"),
        ("?!", "all", "a photo of $"),
    ],
)
def test_what_a_text_is_about_is_masked(text, runs, wanted):
    assert masked(text, runs) == wanted


def test_of_function_words_one_is_drawn():
    torch.manual_seed(0)
    found = {masked("on and off") for _ in range(30)}
    assert found == {"$ and off", "on $ off", "on and $"}
    assert masked("sun", "but-last") == "$"


def test_lincir_by_hand():
    loaded, attached, context, batch = setting("inversion")
    loaded.model.eval()
    term = registry.load(TERMS, "lincir").term(context, noise=0.5)
    assert not term.reads_images
    assert not term.reads_texts
    torch.manual_seed(4)
    found = term.loss(None, None, batch)
    torch.manual_seed(4)
    with torch.no_grad():
        z = models.encode_text(loaded.model, models.shorten(loaded.model, batch["tokens"]))
        noisy = z + 0.5 * torch.rand(len(z))[:, None] * torch.randn(z.shape)
        cut = loaded.tokenize([masked(text) for text in TEXTS])
        query = query_features(loaded.model, noisy, cut)
    wanted = np.square(query.numpy().astype(np.float64) - z.numpy()).sum() / z.numel()
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    found.backward()
    assert all(p.grad.abs().max() > 0 for n, p in attached.trained.items() if "inversion" in n)
    assert all(p.grad is None for n, p in loaded.model.named_parameters() if "inversion" not in n)


def test_another_token_is_named():
    context = setting("inversion")[2]
    context.attached.model.inversion.place = 7
    with pytest.raises(UsageError, match=r"has 259 for '\$': set method.place=259"):
        registry.load(TERMS, "lincir").term(context)


@pytest.fixture
def photos(tmp_path):
    return tiny.draw_shapes(tmp_path / "photos")


@pytest.fixture
def captions(photos):
    for path in photos.rglob("*.png"):
        path.with_suffix(".txt").write_text(f"a {path.parent.name.replace('_', ' ')}")
    return f"data={{source: caption-files, root: {photos}, task: captions}}"


INVERSION = ("method={name: inversion, hidden: 1, template: '$ {}'}", "objective=[{name: lincir}]")


def test_texts_alone_are_read(tiny_folder, photos, captions, tmp_path, monkeypatch):
    def read(*given):
        raise AssertionError("a picture was read")

    monkeypatch.setattr("radapter.data.stores.Files.read", read)
    run = train(tiny.recipe(tiny_folder, photos, *INVERSION, captions), tmp_path)
    assert len(run.logged("loss")) == 9


@pytest.fixture
def triplets(photos):
    """Pictures of two colours with an edit each."""
    colours = {"red_square": "blue", "blue_circle": "red"}
    rows = [
        {"image": f"{name}/{i:02d}.png", "edit": f"make it {new}", "target": f"a {new} thing"}
        for name, new in colours.items()
        for i in range(8)
    ]
    path = photos / "triplets.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_mota_goes_on_from_inversion_stops_and_goes_on(
    tiny_folder, photos, captions, triplets, tmp_path
):
    first = train(tiny.recipe(tiny_folder, photos, *INVERSION, captions), tmp_path / "first")
    before = load_file(first.adapter)
    mota = ("objective=[{name: entropy-contrast}]", f"data={{source: triplets, path: {triplets}}}")
    method = "method={name: mota, hidden: 1, template: '$ {}', average: {momentum: 0.5}}"
    own = tiny.recipe(tiny_folder, photos, method, *mota)
    with pytest.raises(UsageError, match="goes on from what a run of inversion has trained"):
        train(own, tmp_path / "none")
    own = tiny.recipe(tiny_folder, photos, method, *mota, f"start={first.path}")
    whole = train(own, tmp_path / "whole")
    stored = load_file(whole.adapter)
    for name, value in before.items():  # the network is kept as it was
        torch.testing.assert_close(stored[name], value)
    assert stored["inversion.prompts"].abs().max() > 0
    losses = whole.logged("loss")
    assert losses[-1]["loss"] < losses[0]["loss"]
    with pytest.raises(Interrupted) as caught:
        train(own, tmp_path / "stopped", should_stop=iter([False] * 2 + [True]).__next__)
    assert resume(caught.value.run).adapter.read_bytes() == whole.adapter.read_bytes()
    other = tiny.recipe(tiny_folder, photos, *mota, f"start={first.path}",
                        "method={name: mota, hidden: 2, template: '$ {}'}")  # fmt: skip
    with pytest.raises(UsageError, match="mota goes on from that with the same"):
        train(other, tmp_path / "other")


def test_the_weights_of_entropy_by_hand():
    generator = np.random.default_rng(0)
    logits, right = 3 * generator.standard_normal((6, 4)), generator.integers(0, 4, 6)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    each = -np.log(p[range(6), right])
    entropy = -(p * np.log(p)).sum(axis=1) / np.log(4)
    given = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(right)
    found = entropy_weighted(*given)
    assert found.item() == pytest.approx(((1 + entropy) * each).mean(), rel=1e-5)
    found.backward()
    gradient = (1 + entropy)[:, None] * (p - np.eye(4)[right]) / 6  # none through the weights
    np.testing.assert_allclose(given[0].grad, gradient, atol=1e-6)
    plain = entropy_weighted(*given, by_entropy=False)
    assert plain.item() == pytest.approx(each.mean(), rel=1e-5)


def test_mota_is_of_queries_and_texts_by_hand():
    loaded, _, context, batch = setting("mota")
    loaded.model.eval()
    term = registry.load(TERMS, "entropy-contrast").term(context, temperature=0.2)
    with torch.no_grad():
        z = F.normalize(loaded.model.encode_image(batch["images"]), dim=-1)
        texts = F.normalize(models.encode_text(loaded.model, batch["tokens"]), dim=-1)
        template = loaded.model.inversion.template
        asking = loaded.tokenizer([template.replace("{}", edit) for edit in batch["edits"]])
        queries = F.normalize(query_features(loaded.model, z, asking), dim=-1)
        wanted = entropy_weighted(queries @ texts.T / 0.2, batch["text_of"])
    found = term.loss(Features(z, texts, texts[:0], torch.tensor(1.0)), None, batch)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_what_mota_cannot_train_on_is_said():
    context = setting("inversion")[2]
    term = registry.load(TERMS, "entropy-contrast").term
    with pytest.raises(UsageError, match=r"x has none: give data of `task: edits`"):
        term(dataclasses.replace(context, dataset=dataclasses.replace(context.dataset, edits=[])))
    context.attached.model.inversion.unit_norm = False
    with pytest.raises(UsageError, match="set method.unit_norm=true"):
        term(context)
