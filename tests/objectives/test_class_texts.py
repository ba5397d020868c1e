"""Cross-entropy among the texts of all classes, against NumPy."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from a_batch import move, setting

from radapter import models, registry
from radapter.data import Dataset
from radapter.errors import UsageError
from radapter.objectives import class_texts
from radapter.objectives.terms import Context, Features
from radapter.registry import METHODS

NAMES = ["cat", "sea", "Cat"]  # two of one name


def of(method="full", names=NAMES, **settings):
    loaded, attached, context, batch = setting(method)
    context = dataclasses.replace(
        context, dataset=dataclasses.replace(context.dataset, class_names=names)
    )
    return loaded, attached, class_texts.term(context, **settings), batch


def by_hand(images, texts, groups, kappa):
    rows = [0, 1, 0]
    logits = kappa * images @ texts.T
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -np.mean([logs[i, rows[g]] for i, g in enumerate(groups.tolist())])


@pytest.mark.parametrize(("temperature", "kappa"), [(0.07, 1 / 0.07), (None, 3.0)])
def test_by_hand(temperature, kappa):
    _, _, term, batch = of(temperature=temperature)
    assert term.pool == ["a photo of a cat.", "a photo of a sea."]
    assert (term.drawn, len(term.texts())) == (2, 2)
    generator = torch.Generator().manual_seed(0)
    images, extra = (F.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (7, 2))
    found = term.loss(Features(images, extra[:0], extra, torch.tensor(3.0)), None, batch)
    wanted = by_hand(images.double().numpy(), extra.double().numpy(), batch["groups"], kappa)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_texts_of_a_tower_that_is_not_trained_are_encoded_once():
    """After training has begun, so those of what a run that it starts from has left."""
    loaded, attached, context, batch = setting("ucdr-prompts")
    term = class_texts.term(context, template="{}")
    assert (term.texts, term.drawn) == (None, 0)
    move(attached)
    with torch.no_grad():
        own = models.encode_text(loaded.model, loaded.tokenizer(context.dataset.class_names))
    texts = F.normalize(own, dim=1).double().numpy()
    images = F.normalize(torch.randn(7, 16), dim=1)
    features = Features(images, images[:0], images[:0], torch.tensor(1.0))
    wanted = -np.mean([
        np.log(np.exp(14.2857142857 * v @ texts.T) / np.exp(14.2857142857 * v @ texts.T).sum())[g]
        for v, g in zip(images.double().numpy(), batch["groups"].tolist(), strict=True)
    ])  # fmt: skip
    assert term.loss(features, None, batch).item() == pytest.approx(wanted, rel=1e-5)
    with torch.no_grad():
        loaded.model.text_projection.zero_()
    assert term.loss(features, None, batch).item() == pytest.approx(wanted, rel=1e-5)


def of_context(tokenize=None, **settings):
    loaded = tiny.build()
    attached = registry.load(METHODS, "ucdr-prompts").attach(loaded.model, **settings)
    dataset = Dataset("x", ["a"], lambda i: None, class_names=["$5 note", "sea"])
    return loaded, attached, Context(tokenize or loaded.tokenizer, dataset, attached)


def test_a_method_with_a_context_says_where_it_stands():
    _, _, context = of_context(context=2)
    term = class_texts.term(context)
    assert term.pool == ["a photo of  5 note from $ $ domain.", "a photo of sea from $ $ domain."]
    assert [(own == 259).sum().item() for own in term.texts()] == [2, 2]
    assert class_texts.term(context, template="{}").pool == [" 5 note", "sea"]


def test_what_cannot_be_is_said():
    loaded, _, context = of_context(context=12)
    short = dataclasses.replace(context, tokenize=lambda t: loaded.tokenizer(t, context_length=16))
    with pytest.raises(
        UsageError, match=r"data.text_length: 16 tokens have no room for the contex"
    ):
        class_texts.term(short)
    with pytest.raises(UsageError, match=r"has 259 for '\$': set method.place=259"):
        class_texts.term(of_context(place=7)[2])
    with pytest.raises(UsageError, match=r"objective.template needs one \{\} for the class name"):
        class_texts.term(context, template="a photo")
    none = dataclasses.replace(
        context, dataset=dataclasses.replace(context.dataset, class_names=[])
    )
    with pytest.raises(UsageError, match="class-texts is of classes, and x has none: give data of"):
        class_texts.term(none)
