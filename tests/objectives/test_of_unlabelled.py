"""Terms of a loss and pictures without labels: terms leave them out, or are of them."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from a_batch import found, move, setting, together

from radapter import registry
from radapter.objectives import contrastive, in_batch_distillation


def mixed_batch(term=None):
    """Four labelled pictures, and three with a text of their own that is in no other row."""
    of_pairs = term in tiny.OF_PAIRS
    loaded, attached, context, batch = together() if of_pairs else setting("full")
    move(attached)
    kind = type("Section", (), {"texts": True})
    context = dataclasses.replace(context, unlabelled=kind)
    text_of = torch.tensor([0, 1, 2, 1, 3, 3, 0])
    groups = torch.tensor([0, 1, 2, 1, -1, -1, -1])
    own = torch.zeros(7, dtype=torch.bool)
    batch |= {"text_of": text_of, "groups": groups, "own": own}
    return loaded, attached, context, batch | {"labelled": 4, "labelled_texts": 3}


def labelled_alone(batch):
    own = {name: batch[name][:4] for name in ("images", "text_of", "groups", "own")}
    return {**own, "tokens": batch["tokens"][:3]}


NOT_OF_ROWS = ("orthogonality", *tiny.OF_QUERIES["inversion"])
"""Terms that read no rows, or edits, which no unlabelled picture has"""


@pytest.mark.parametrize("name", [name for name in registry.TERMS if name not in NOT_OF_ROWS])
def test_terms_see_labelled_pictures_alone(name):
    """As if the others were not there."""
    loaded, attached, context, batch = mixed_batch(name)
    settings = registry.load(registry.TERMS, name).EXAMPLES[0]
    term = registry.load(registry.TERMS, name).term(context, **settings)
    mixed = found(loaded, attached, batch, [term])
    term = registry.load(registry.TERMS, name).term(context, **settings)
    alone = found(loaded, attached, labelled_alone(batch), [term])
    assert mixed[0] == pytest.approx(alone[0], rel=1e-5)
    for one, two in zip(mixed[1], alone[1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def features(model, batch):
    with torch.no_grad():
        images = model.encode_image(batch["images"]).double()
        texts = model.encode_text(batch["tokens"]).double()
    return [(f / f.norm(dim=1, keepdim=True)).numpy() for f in (images, texts)]


def numpy_divergence(now, then):
    def log_softmax(x):
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_softmax(then), log_softmax(now)
    return (np.exp(p) * (p - q)).sum(axis=1).mean()


@pytest.mark.parametrize(("texts", "of"), [("labelled", [0, 1, 2, 1]), ("unlabelled", [3, 3, 0])])
@pytest.mark.parametrize("squared", [False, True])
def test_in_batch_distillation_is_its_formula(texts, of, squared):
    loaded, attached, context, batch = mixed_batch()
    term = in_batch_distillation.term(
        context, texts=texts, temperature=0.1, weight=3.0, squared_scale=squared
    )
    loss, gradient = found(loaded, attached, batch, [term])
    v, t = features(loaded.model, batch)
    with attached.at(0.0) as teacher:
        v0, t0 = features(teacher, batch)
    now, then = 10 * v[4:] @ t[of].T, 10 * v0[4:] @ t0[of].T
    wanted = (numpy_divergence(now, then) + numpy_divergence(now.T, then.T)) / 2
    assert loss == pytest.approx(3 * wanted * (100 if squared else 1), rel=1e-4)
    again, parts = found(loaded, attached, batch, [term], micro_batch=2)
    assert again == pytest.approx(loss, rel=1e-5)
    for one, two in zip(gradient, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(one.abs().max() + 1))


def test_temperatures():
    loaded, attached, context, batch = mixed_batch()
    scale = loaded.model.logit_scale.exp().item()
    by_scale, own = (
        found(loaded, attached, batch, [in_batch_distillation.term(context, temperature=t)])[0]
        for t in (1 / scale, None)
    )
    assert own == pytest.approx(by_scale, rel=1e-5)
    clip, fixed = (
        found(loaded, attached, batch, [contrastive.term(context, temperature=t)])[0]
        for t in (None, 0.015)
    )
    v, t = features(loaded.model, batch)
    logits = v[:4] @ t[[0, 1, 2, 1]].T / 0.015
    right = batch["groups"][:4, None].numpy() == batch["groups"][None, :4].numpy()
    logits = logits + ~right * 0.05 / 0.015
    both = 0.0
    for own_logits in (logits, logits.T):
        log = own_logits - np.log(np.exp(own_logits).sum(axis=1, keepdims=True))
        both -= (log * right / right.sum(axis=1, keepdims=True)).sum(axis=1).mean() / 2
    assert fixed == pytest.approx(both, rel=1e-4)
    assert clip != pytest.approx(fixed, rel=1e-2)


@pytest.mark.parametrize("rows", ["unlabelled", "all"])
def test_terms_that_ask_no_label_may_be_of_other_rows(rows):
    loaded, attached, context, batch = mixed_batch()
    for name in ("car-ft", "lipsum-ft", "retention", "fd-align"):
        module = registry.load(registry.TERMS, name)
        settings = {**module.EXAMPLES[0], "weight": 1.0}
        chosen = found(loaded, attached, batch, [module.term(context, **settings, rows=rows)])
        which = slice(4, None) if rows == "unlabelled" else slice(None)
        images = {**batch, "images": batch["images"][which], "groups": batch["groups"][which]}
        del images["labelled"], images["labelled_texts"]
        alone = found(loaded, attached, images, [module.term(context, **settings)])
        assert chosen[0] == pytest.approx(alone[0], rel=1e-5), name
        assert chosen[0] > 1e-6


def test_a_batch_without_what_a_term_is_of_leaves_the_term_out():
    loaded, attached, context, batch = mixed_batch()
    terms = [contrastive.term(context), in_batch_distillation.term(context)]
    alone = labelled_alone(batch) | {"labelled": 4, "labelled_texts": 3}
    assert found(loaded, attached, alone, terms)[0] == pytest.approx(
        found(loaded, attached, batch, terms[:1])[0], rel=1e-5
    )
