"""The term `image-text-matching`: what is drawn, its formula in NumPy, and its gradients against
one backward pass through the whole model."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from a_batch import found, move, together
from ranks import in_ranks, results

from radapter import distributed
from radapter.errors import UsageError
from radapter.losses import multi_positive
from radapter.models.matching import last_tokens, match_logits, of_pictures, of_texts
from radapter.objectives import contrastive, image_text_matching, momentum_queue
from radapter.objectives.terms import Features
from radapter.training import Interrupted, resume, train
from radapter.training.planning import plan

TEXT_OF = torch.tensor([0, 1, 2, 0, 3, 1])
BATCH = {
    "text_of": TEXT_OF,
    "groups": torch.tensor([0, 1, 2, 0, 3, 1]),
    "own": torch.zeros(6, dtype=torch.bool),
}
RIGHT = np.equal.outer(BATCH["groups"].numpy(), BATCH["groups"].numpy())


def unit(*shape):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.normalize(rows, dim=-1)


def drawn_often(batch=BATCH, scale=3.0, number=3000, **settings):
    """The share of draws in which picture i got text j, and text j picture i."""
    term = image_text_matching.term(together()[2], **settings)
    features = Features(unit(6, 8), unit(4, 8), unit(0, 8), torch.tensor(scale))
    torch.manual_seed(0)
    texts, pictures = (np.zeros((6, 6)) for _ in range(2))
    own = np.arange(6)
    for _ in range(number):
        right, of_text, of_picture = term.pairs(features, batch).view(3, 6, 2).numpy()
        assert (right == np.stack([own, TEXT_OF], axis=1)).all()
        assert (of_text[:, 1] == TEXT_OF.numpy()).all()
        assert (of_picture[:, 0] == own).all()
        pictures[own, of_text[:, 0]] += 1 / number
        for row, text in enumerate(of_picture[:, 1]):  # of its rows: the first one
            texts[row, TEXT_OF.tolist().index(text)] += 1 / number
    return texts, pictures


def shares(scale, may):
    """The softmax over those that may be drawn, [6, 6]."""
    cosines = (unit(6, 8) @ unit(4, 8)[TEXT_OF].T).double().numpy()
    of_texts, of_pictures = (np.exp(scale * c) * m for c, m in ((cosines, may), (cosines.T, may.T)))
    return [x / x.sum(axis=1, keepdims=True) for x in (of_texts, of_pictures)]


@pytest.mark.parametrize(
    ("settings", "scale"), [({}, 3.0), ({"temperature": 0.5}, 2.0)], ids=["own", "given"]
)
def test_wrong_ones_are_drawn_by_similarity(settings, scale):
    texts, pictures = drawn_often(**settings)
    of_texts, of_pictures = shares(scale, ~RIGHT)
    one = TEXT_OF.numpy() == np.arange(4)[:, None]  # rows of a text are one text here
    merged = np.zeros((6, 6))
    merged[:, [TEXT_OF.tolist().index(n) for n in range(4)]] = of_texts @ one.T
    np.testing.assert_allclose(texts, merged, atol=0.03)
    np.testing.assert_allclose(pictures, of_pictures, atol=0.03)
    assert not texts[RIGHT].any()
    assert not pictures[RIGHT].any()
    assert of_pictures.max() > 0.4


def test_a_logit_scale_of_a_hundred_leaves_a_draw_to_draw():
    """The right ones' exponentials alone would underflow all others."""
    texts, pictures = drawn_often(scale=1e4, number=3)
    for drawn in (texts, pictures):
        np.testing.assert_allclose(drawn.sum(axis=1), 1)
        assert not drawn[RIGHT].any()


def test_a_part_draws_from_itself_alone():
    _, pictures = drawn_often(parts=2, number=500)
    part = np.arange(6) // 3
    same = np.equal.outer(part, part) & ~RIGHT
    assert not pictures[~same].any()
    np.testing.assert_allclose(pictures, shares(3.0, same)[1], atol=0.08)


@pytest.mark.parametrize("alone", [False, True])
def test_the_loss_is_its_formula(alone):
    """A row that is right for all others has no wrong ones to count."""
    groups = BATCH["groups"].clone()
    if alone:
        groups[:] = 0
        groups[4] = 1
    batch = BATCH | {"groups": groups}
    logits = torch.randn(18, 2, generator=torch.Generator().manual_seed(1))
    features = Features(unit(6, 8), unit(4, 8), unit(0, 8), torch.tensor(3.0), logits)
    value = image_text_matching.term(together()[2]).loss(features, None, batch)
    x = logits.double().numpy()
    log = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    right = np.equal.outer(groups.numpy(), groups.numpy())
    has = (~right).any(axis=1)
    losses = [-log[:6, 1], -log[6:12, 0][has], -log[12:, 0][has]]
    assert value.item() == pytest.approx(np.concatenate(losses).mean(), rel=1e-5)
    everyone = BATCH | {"groups": torch.zeros(6, dtype=torch.int64)}
    term = image_text_matching.term(together()[2])
    assert term.pairs(features, everyone).shape == (18, 2)
    assert term.loss(features, None, everyone).item() == pytest.approx(-log[:6, 1].mean(), rel=1e-5)


# ---------------------------------------------------------------- gradients


def moved():
    loaded, attached, context, batch = together()
    move(attached)
    return loaded, attached, context, batch


def test_gradients_are_those_of_one_backward_pass():
    """Of the matching loss and the contrastive one, through features and decoder at once."""
    loaded, attached, context, batch = moved()
    terms = [contrastive.term(context), image_text_matching.term(context, weight=0.7)]
    loss, whole = found(loaded, attached, batch, terms)
    for parameter in attached.parameters():
        parameter.grad = None
    model, of = loaded.model, batch["text_of"]
    (images, seen), (texts, read) = (
        of_pictures(model, batch["images"]), of_texts(model, batch["tokens"])
    )  # fmt: skip
    images, texts = (torch.nn.functional.normalize(x, dim=-1) for x in (images, texts))
    features = Features(images, texts, texts[:0], model.logit_scale.exp())
    torch.manual_seed(3)
    pairs = terms[1].pairs(features, batch)
    last = last_tokens(model, batch["tokens"])[pairs[:, 1]]
    matches = match_logits(model, seen[pairs[:, 0]], read[pairs[:, 1]], last)
    with_matches = dataclasses.replace(features, matches=matches)
    right = contrastive.positives_of(batch, "group")
    expected = multi_positive(
        images, texts[of], right, logit_scale=features.logit_scale, smoothing=0.0, margin=0.05
    ) + 0.7 * terms[1].loss(with_matches, None, batch)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    reached = [p.grad for p in attached.parameters() if p.grad is not None]
    assert len(reached) == len(whole) == len(attached.trained) - 1  # all but the head of classes
    for one, two in zip(whole, reached, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", image_text_matching.EXAMPLES)
def test_in_chunks_and_in_half_precision(settings):
    loaded, attached, context, batch = moved()
    queue = momentum_queue.term(context, size=5)
    terms = [queue, image_text_matching.term(context, **settings)]
    loss, whole = found(loaded, attached, batch, terms)
    assert max(gradient.abs().max() for gradient in whole) > 1e-4
    again, parts = found(loaded, attached, batch, terms, micro_batch=3)
    assert again == pytest.approx(loss, rel=1e-5)
    largest = max(1.0, *(float(gradient.abs().max()) for gradient in whole))
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * largest)
    near, rough = found(loaded, attached, batch, terms, precision=torch.bfloat16)
    assert near == pytest.approx(loss, rel=0.25)
    one, two = (torch.cat([gradient.flatten() for gradient in of]) for of in (whole, rough))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.9


def of_all(shared):
    values = []
    with distributed.joined():
        for settings in image_text_matching.EXAMPLES:
            loaded, attached, context, batch = moved()
            terms = [contrastive.term(context), image_text_matching.term(context, **settings)]
            share = distributed.share(len(batch["images"]))
            own = {**batch, "images": batch["images"][share], "first": share.start}
            loss, of = found(loaded, attached, own, terms, micro_batch=shared)
            values.append((loss, [gradient.numpy() for gradient in of]))
    return values


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_several_processes_give_what_one_gives(micro_batch):
    expected = of_all(micro_batch)
    for values in results(in_ranks(3, of_all, micro_batch)):
        for one, two in zip(expected, values, strict=True):
            assert two[0] == pytest.approx(one[0], rel=1e-5)
            largest = max(1.0, *(abs(gradient).max() for gradient in one[1]))
            for ours, theirs in zip(two[1], one[1], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * largest)


# ---------------------------------------------------------------- training


@pytest.fixture
def recipe(coca_folder, shapes):
    def made(*overrides, method="multimodal: true, norm: own"):
        average = "average: {momentum: 0.5, keep: last}"
        return tiny.recipe(
            coca_folder, shapes, f"method={{name: uniadapter, rank: 4, {method}, {average}}}",
            "objective=[{name: momentum-queue, size: 12}, {name: image-text-matching}]", *overrides,
        )  # fmt: skip

    return made


def test_a_stopped_run_goes_on_to_the_same_end(recipe, tmp_path):
    whole = train(recipe(), tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        train(recipe(), tmp_path / "stopped", should_stop=iter([False] * 3 + [True]).__next__)
    assert resume(caught.value.run).adapter.read_bytes() == whole.adapter.read_bytes()


def test_what_no_term_reads_is_said(recipe, tmp_path):
    for settings, message in (
        (recipe("objective={name: mpm-nce}"), "no term of the objective reads it: add"),
        (recipe(method="norm: own"), "objective.1: image-text-matching could have no effect"),
    ):
        with pytest.raises(UsageError, match=message):
            train(settings, tmp_path)


def test_clips_are_refused():
    context = together()[2]
    clips = dataclasses.replace(context.dataset, frames=3)
    with pytest.raises(UsageError, match="reads pictures, and x has clips"):
        image_text_matching.term(dataclasses.replace(context, dataset=clips))


def test_the_plan_counts_what_the_decoder_keeps(recipe):
    """For all pairs at once; a micro batch has fewer."""
    two = plan(recipe("objective={name: mpm-nce}", method="norm: own")).fit.memory
    whole = plan(recipe()).fit.memory
    parts = plan(recipe("optimisation.micro_batch=2")).fit.memory
    assert whole.kept > 1.5 * two.kept
    assert parts.kept < 0.7 * whole.kept
