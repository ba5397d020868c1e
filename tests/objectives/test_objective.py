import functools
import math

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import models, registry
from radapter.data import Dataset, open_data
from radapter.data.pairs import Pairs, collate, training_transform
from radapter.data.settings import Augmentation
from radapter.data.sources.emoji import EmojiData
from radapter.errors import BrokenInput, UsageError
from radapter.losses import mpm_nce, multi_positive, retention
from radapter.objectives import contrastive
from radapter.objectives import retention as retention_term
from radapter.objectives.terms import Context
from radapter.registry import METHODS
from radapter.training import plan
from radapter.training.feeding import Pixels
from radapter.training.gradients import gradients


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def softmax(row):
    terms = [math.exp(x - max(row)) for x in row]
    return [term / sum(terms) for term in terms]


@pytest.mark.parametrize("kappa", [1.0, 14.3, 100.0])
def test_retention_is_the_divergence_term_by_term(kappa):
    v, t, v0, t0 = unit(5, 8, seed=1), unit(7, 8, seed=2), unit(5, 8, seed=3), unit(7, 8, seed=4)
    now = kappa * (v.double() @ t.double().T).numpy()
    then = kappa * (v0.double() @ t0.double().T).numpy()
    total = 0.0
    for ours, theirs in ((now, then), (now.T, then.T)):
        for row, row0 in zip(ours.tolist(), theirs.tolist(), strict=True):
            p, p0 = softmax(row), softmax(row0)
            terms = (b * (math.log(b) - math.log(a)) for a, b in zip(p, p0, strict=True) if b)
            total += sum(terms) / len(ours)
    value = retention(v, t, v0, t0, logit_scale=kappa)
    assert value.item() == pytest.approx(total / 2, rel=1e-4)


def test_retention_of_the_zero_shot_model_itself_is_zero_with_zero_gradient():
    v, t = unit(5, 8, seed=1).requires_grad_(), unit(7, 8, seed=2)
    value = retention(v, t, v.detach(), t, logit_scale=50.0)
    assert value.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(value, v)
    assert gradient.abs().max() < 1e-5


def test_a_relation_of_any_form():
    """Class prompts 0 and 1 of one class, and a caption that is right for its picture alone."""
    positive = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]).bool()
    v, t, kappa, smoothing, margin = unit(4, 6, seed=5), unit(4, 6, seed=6), 9.0, 0.1, 0.05
    total = 0.0
    for ours, right in ((v @ t.T, positive), (t @ v.T, positive.T)):
        for i in range(4):
            row = [kappa * (ours[i, j].item() + margin * (not right[i, j])) for j in range(4)]
            p, n = softmax(row), int(right[i].sum())
            for j in range(4):
                target = (1 - smoothing) / n if right[i, j] else smoothing / (4 - n)
                total -= target * math.log(p[j]) / 4
    loss = multi_positive(v, t, positive, logit_scale=kappa, smoothing=smoothing, margin=margin)
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)


def test_what_is_positive_for_what():
    batch = {
        "groups": torch.tensor([7, 7, 3, 7]),
        "own": torch.tensor([False, False, False, True]),
        "text_of": torch.tensor([0, 0, 1, 2]),
    }
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1]]
    assert contrastive.positives_of(batch, "group").int().tolist() == expected
    # Two pictures that drew one caption: neither is a wrong answer for the other.
    drawn = {**batch, "own": torch.tensor([False, True, True, True])}
    drawn["text_of"] = torch.tensor([0, 1, 1, 2])
    expected = [[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    assert contrastive.positives_of(drawn, "group").int().tolist() == expected
    pair = contrastive.positives_of(batch, "pair")
    assert torch.equal(pair, torch.eye(4).bool())


@pytest.fixture
def loaded(tiny_folder):
    return models.load(tiny_folder)


def emoji_batch(loaded, mix=0.0, size=8):
    settings = EmojiData(source="emoji", task="classification")
    dataset = open_data(settings)
    cfg = loaded.config["preprocess_cfg"]
    pairs = Pairs(dataset, settings, training_transform(Augmentation(), cfg), 0, mix)
    batch = collate([pairs[0, i] for i in range(size)], loaded.tokenizer)
    pixels = Pixels(cfg["mean"], cfg["std"], torch.device("cpu"))
    return dataset, {**batch, "images": pixels(batch["images"])}


def test_without_additions_it_is_mpm_nce(loaded):
    _, batch = emoji_batch(loaded)
    terms = [contrastive.term(None, smoothing=0.02, margin=0.05)]
    value = gradients(loaded.model, batch, terms, device=torch.device("cpu"))
    images = loaded.model.encode_image(batch["images"], normalize=True)
    texts = loaded.model.encode_text(batch["tokens"], normalize=True)[batch["text_of"]]
    kappa = loaded.model.logit_scale.exp()
    expected = mpm_nce(
        images, texts, batch["groups"], logit_scale=kappa, smoothing=0.02, margin=0.05
    )
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_captions_among_class_prompts(loaded):
    dataset, batch = emoji_batch(loaded, mix=0.5, size=200)
    share = batch["own"].float().mean().item()
    assert 0.35 < share < 0.65
    texts = {}
    tokens = loaded.tokenizer
    for i, own in enumerate(batch["own"].tolist()):
        name = dataset.class_names[dataset.labels[i]]
        prompts = [f"a photo of a {name}."]
        of_picture = tokens(dataset.captions[i] if own else prompts)
        mine = batch["tokens"][batch["text_of"][i]]
        assert any(torch.equal(mine, text) for text in of_picture), i
        texts[i] = mine
    assert not emoji_batch(loaded, mix=0.0, size=20)[1]["own"].any()
    assert emoji_batch(loaded, mix=1.0, size=20)[1]["own"].all()


@pytest.mark.parametrize("name", [n for n in tiny.TRAINED if not tiny.starts_elsewhere(n, {})])
def test_the_loss_with_retention(loaded, name):
    dataset, batch = emoji_batch(loaded)
    attached = registry.load(METHODS, name).attach(loaded.model)
    attached.keep_start()
    plain = [contrastive.term(None)]
    context = Context(loaded.tokenizer, dataset, attached)
    retain = retention_term.term(context, weight=2.0, pool=16)
    captions, teachers = retain.pool, {"zero-shot": functools.partial(attached.at, 0.0)}
    cpu = torch.device("cpu")

    def both():
        torch.manual_seed(4)
        terms = [*plain, retain]
        with_it = gradients(loaded.model, batch, terms, device=cpu, teachers=teachers)
        return with_it.item(), gradients(loaded.model, batch, plain, device=cpu).item()

    with_it, without = both()
    assert with_it == pytest.approx(without, abs=1e-4)  # nothing has moved yet
    model = loaded.model
    torch.manual_seed(4)
    pool = loaded.tokenizer([captions[i] for i in torch.randperm(len(captions))[:16]])
    with torch.no_grad():
        before = [model.encode_image(batch["images"], True), model.encode_text(pool, True)]
        for parameter in attached.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        now = [model.encode_image(batch["images"], True), model.encode_text(pool, True)]
    kappa = model.logit_scale.exp()
    with_it, without = both()
    moved = retention(*now, *before, logit_scale=kappa).item()
    assert moved > 1e-4
    assert with_it - without == pytest.approx(2 * moved, rel=1e-3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attached.parameters())


def test_captions_to_retain(tmp_path):
    dataset = Dataset("x", ["a", "b"], lambda i: None, captions=[["one", "two"], ["one"]])
    assert retention_term.captions_of(None, dataset, "objective.retain") == ["one", "two"]
    path = tmp_path / "captions.txt"
    path.write_text("a cat\n\n  a dog \na cat\n", encoding="utf-8")
    assert retention_term.captions_of(str(path), dataset, "objective.retain") == ["a cat", "a dog"]
    path.write_text("one\n")
    with pytest.raises(BrokenInput, match="at least two"):
        retention_term.captions_of(str(path), dataset, "objective.retain")
    path.write_bytes(np.arange(128, 256, dtype=np.uint8).tobytes())
    with pytest.raises(BrokenInput, match="not a UTF-8"):
        retention_term.captions_of(str(path), dataset, "objective.retain")
    with pytest.raises(BrokenInput, match="No such file"):
        retention_term.captions_of("nothing.txt", dataset, "objective.retain")
    with pytest.raises(UsageError, match=r"objective\.retain\.captions"):
        retention_term.captions_of(None, Dataset("x", ["a"], lambda i: None), "objective.retain")


def test_what_an_objective_cannot_do_is_said_before_training(tiny_folder, shapes):
    with pytest.raises(UsageError, match="mix_captions"):
        plan(tiny.recipe(tiny_folder, shapes, "objective.mix_captions=0.5"))
    with pytest.raises(UsageError, match="needs captions"):
        plan(tiny.recipe(tiny_folder, shapes, "objective.retain={}"))
    in_a_list = ["objective=[{name: mpm-nce}, {name: retention}]"]
    with pytest.raises(UsageError, match=r"objective\.1 needs captions .* objective\.1\.captions"):
        plan(tiny.recipe(tiny_folder, shapes, *in_a_list))
    with pytest.raises(UsageError, match=r"objective\.0\.mix_captions puts captions"):
        plan(tiny.recipe(tiny_folder, shapes, *in_a_list, "objective.0.mix_captions=0.5"))
