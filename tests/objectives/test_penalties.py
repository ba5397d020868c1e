"""Terms that hold a model near another are their formulas, in NumPy and float64."""

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from a_batch import move, setting

from radapter import registry
from radapter.data import Dataset
from radapter.errors import MissingDependency, UsageError
from radapter.objectives import (
    car_ft,
    contexts,
    fd_align,
    l2_sp,
    lipsum,
    orthogonality,
    self_distillation,
)
from radapter.objectives.terms import Context, Features
from radapter.registry import METHODS
from radapter.training import plan

TEMPLATES = ["a photo of a {}.", "a sketch of the {}.", "a blurry {}.", "{} at night"]
BATCH = {"text_of": torch.tensor([0, 1, 2, 0, 1])}


def softmax(rows):
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kl(now, then):
    """Of each row"""
    p, q = softmax(then), softmax(now)
    return (p * (np.log(p) - np.log(q))).sum(axis=1)


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def check(term, formula, images, texts, extra, then, scales=(9.0, 11.0), batch=BATCH):
    """A term against `formula(images, texts, extra)` of rows of any norm, in value and gradients,
    those by differences; `then` are the teacher's."""
    leaves = [torch.tensor(a, dtype=torch.float32).requires_grad_() for a in (images, texts, extra)]
    now = Features(*(F.normalize(leaf, dim=-1) for leaf in leaves), torch.tensor(scales[0]))
    teacher = Features(
        *(F.normalize(torch.tensor(a).float(), dim=-1) for a in then), torch.tensor(scales[1])
    )
    value = term.loss(now, teacher, batch)
    assert value.item() == pytest.approx(formula(images, texts, extra), rel=1e-4)
    value.backward()
    given = [images, texts, extra]
    for number, leaf in enumerate(leaves):
        direction = rows(50 + number, *leaf.shape)
        ends = [
            formula(
                *(a + sign * 1e-5 * direction if i == number else a for i, a in enumerate(given))
            )
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / 2e-5
        ours = 0.0 if leaf.grad is None else float((leaf.grad.numpy() * direction).sum())
        assert ours == pytest.approx(expected, rel=1e-3, abs=1e-4)


IMAGES, TEXTS, EXTRA = rows(1, 5, 16), rows(2, 3, 16), rows(3, 6, 16)
THEN = rows(4, 5, 16), rows(5, 3, 16), rows(6, 6, 16)


def texts_of(model, tokenize, texts):
    with torch.no_grad():
        return model.encode_text(tokenize(texts), normalize=True).double().numpy()


@pytest.mark.parametrize("of", ["class-free", "class-means"])
def test_car_ft(of):
    loaded, _, context, _ = setting("full")
    names = context.dataset.class_names
    if of == "class-free":
        texts = ["a photo of a .", "a sketch of the .", "a blurry .", "at night"]
        fixed = texts_of(loaded.model.eval(), loaded.tokenizer, texts)
    else:
        filled = [[t.format(name) for name in names] for t in TEMPLATES]
        each = [texts_of(loaded.model.eval(), loaded.tokenizer, some) for some in filled]
        fixed = unit(np.stack([features.mean(axis=0) for features in each]))
    assert np.linalg.norm(fixed, axis=1) == pytest.approx(1)

    def formula(images, texts, extra):
        return kl(11.0 * unit(images) @ fixed.T, 11.0 * unit(THEN[0]) @ fixed.T).mean()

    term = car_ft.term(context, templates=TEMPLATES, of=of)
    check(term, formula, IMAGES, TEXTS, EXTRA, THEN)


@pytest.mark.parametrize("mean", ["pictures", "elements"])
def test_fd_align(mean):
    context = setting("full")[2]
    fixed = contexts.class_means(context, TEMPLATES).double().numpy()

    def formula(images, texts, extra):
        each = kl(11.0 * unit(images) @ fixed.T, 11.0 * unit(THEN[0]) @ fixed.T)
        return each.mean() / (len(fixed) if mean == "elements" else 1)

    term = fd_align.term(context, templates=TEMPLATES, mean=mean)
    check(term, formula, IMAGES, TEXTS, EXTRA, THEN)


def test_prototypes_of_fd_align():
    """One that is far from the others is left out; centres are means of what is near them."""
    near = F.normalize(torch.tensor(rows(7, 1, 8) + 0.1 * rows(8, 12, 8)).float(), dim=1)
    far = F.normalize(torch.tensor(rows(9, 1, 8)).float(), dim=1)
    every = torch.cat([near[:5], far, near[5:]])
    assert torch.equal(fd_align._without_outliers(every, 12, ""), near)
    centres = fd_align._centres(every, 3, "")
    nearest = torch.cdist(every, centres).argmin(dim=1)
    for number, centre in enumerate(centres):
        torch.testing.assert_close(centre, every[nearest == number].mean(dim=0))


def test_lipsum_ft():
    def formula(images, texts, extra):
        now, then = (11.0 * unit(a) @ unit(b).T for a, b in ((images, extra), (THEN[0], THEN[2])))
        return ((now - then) ** 2).sum(axis=1).mean() / (2 * len(extra))

    check(lipsum.term(setting("full")[2]), formula, IMAGES, TEXTS, EXTRA, THEN)


def test_random_texts_are_of_tokens_that_the_model_knows():
    loaded, _, context, _ = setting("full")
    known = torch.tensor([320, 1125, 539, 2368])
    with torch.no_grad():
        table = torch.zeros_like(loaded.model.token_embedding.weight)
        table[known] = 1.0
        table[[0, 49406, 49407]] = 1.0
        loaded.model.token_embedding.weight.copy_(table)
    draw = lipsum.term(context, texts=50, length=6).texts
    torch.manual_seed(0)
    tokens, others = draw(), draw()
    assert tokens.shape == (50, 77)
    assert (tokens[:, 0] == 49406).all()
    assert (tokens[:, 7] == 49407).all()
    assert not tokens[:, 8:].any()
    assert set(tokens[:, 1:7].unique().tolist()) == set(known.tolist())
    assert not torch.equal(tokens, others)
    torch.manual_seed(0)
    assert torch.equal(draw(), tokens)


def test_random_texts_that_are_too_long_are_refused():
    context = setting("full")[2]
    with pytest.raises(UsageError, match="length is 90, and the texts have room for 75 tokens"):
        lipsum.term(context, length=90)


def test_self_distillation():
    """Cross-entropy to the teacher less the teacher's entropy: CaRot's gradients."""

    def formula(images, texts, extra):
        now = 9.0 * unit(images) @ unit(texts)[[0, 1, 2, 0, 1]].T
        then = 11.0 * unit(THEN[0]) @ unit(THEN[1])[[0, 1, 2, 0, 1]].T
        return kl(now, then).mean() + kl(now.T, then.T).mean()

    check(self_distillation.term(setting("full")[2]), formula, IMAGES, TEXTS, EXTRA, THEN)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("custom", [False, True])
def test_orthogonality(squared, custom):
    loaded = tiny.build(custom=custom, text={"proj_bias": True} if custom else None)
    attached = registry.load(METHODS, "full").attach(loaded.model)
    context = Context(loaded.tokenizer, Dataset("x", ["a"], lambda i: None), attached)
    v = loaded.model.visual.proj
    t = loaded.model.text.text_projection.weight.T if custom else loaded.model.text_projection
    value = orthogonality.term(context, image=0.3, both=0.7, squared=squared).penalty()
    a, b = (matrix.detach().double().numpy() for matrix in (v, t))
    first, second = ((m**2).sum() for m in (a.T @ a - np.eye(16), a @ b.T))
    if not squared:
        first, second = first**0.5, second**0.5
    assert value.item() == pytest.approx(0.3 * first + 0.7 * second, rel=1e-5)
    (gradient,) = torch.autograd.grad(value, v)
    by_gram = 4 * a @ (a.T @ a - np.eye(16)) * 0.3, 2 * a @ b.T @ b * 0.7
    if not squared:
        by_gram = by_gram[0] / (2 * first), by_gram[1] / (2 * second)
    np.testing.assert_allclose(gradient, sum(by_gram), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), tiny.methods())
def test_l2_sp(name, settings):
    """The squared distance of what `merge` gives, or of what does not merge from its start."""
    loaded = tiny.build()
    base = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    average = registry.AdapterAverage if name == "r-adapter" else registry.Average
    torch.manual_seed(1)
    attached = registry.load(METHODS, name).attach(
        loaded.model, **{**settings, "average": average(momentum=0.0)}
    )
    context = Context(loaded.tokenizer, Dataset("x", ["a"], lambda i: None), attached)
    start = {key: value.detach().clone() for key, value in attached.trained.items()}
    term = l2_sp.term(context, weight=3.0)
    assert term.weight * term.penalty().item() == pytest.approx(0, abs=1e-9)
    move(attached)
    merge = getattr(registry.load(METHODS, name), "merge", None)

    def formula():
        if merge is None:
            before, after = start, attached.trained
        else:
            double = {key: value.double() for key, value in base.items()}
            before, after = double, merge(double, attached.stored(), 1.0)
        moved = (after[key].detach().double() - before[key].double() for key in before)
        return 1.5 * sum(float(change.square().sum()) for change in moved)

    value = term.weight * term.penalty()
    assert value.item() == pytest.approx(formula(), rel=1e-4)
    value.backward()
    directions = [torch.randn_like(parameter) for parameter in attached.parameters()]
    slope = sum(
        float((p.grad.double() * d).sum())
        for p, d in zip(attached.parameters(), directions, strict=True)
    )
    ends = []
    with torch.no_grad():
        for step in (1e-3, -2e-3):
            for parameter, direction in zip(attached.parameters(), directions, strict=True):
                parameter.add_(step * direction)
            ends.append(formula())
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["method={name: lora, towers: text}", "objective=[{name: mpm-nce}, {name: car-ft}]"],
            "objective.1: car-ft could have no effect, as nothing in the image tower is trained",
        ),
        (
            ["objective=[{name: self-distillation}]", "method={name: full}"],
            "objective.0: self-distillation could have no effect, as the average that teaches is "
            "the model itself: set method.average.momentum",
        ),
        (
            ["objective=[{name: momentum-queue}]", "method={name: uniadapter}"],
            'model itself: set "method.average={momentum: 0.995, keep: last}".',
        ),
        (
            ["objective=[{name: orthogonality, both: 0}]", "method={name: full, towers: text}"],
            "objective.0.image could have no effect, as the projection of the image tower is not",
        ),
        (
            ["objective=[{name: orthogonality, both: 0, image: 0}]", "method={name: full}"],
            "orthogonality needs `image` or `both` above 0",
        ),
        (
            ["objective=[{name: fd-align, templates: ['a {}', 'the {}'], keep: 3}]"],
            "objective.0.keep is 3: it has to be at least 2, and at most the 2 prototypes",
        ),
        (
            ["objective=[{name: car-ft, templates: ['a {}']}]"],
            "objective.0.templates needs at least two different texts, each with one {}",
        ),
    ],
)
def test_what_could_have_no_effect_is_said_before_training(tiny_folder, shapes, changes, message):
    with pytest.raises(UsageError) as caught:
        plan(tiny.recipe(tiny_folder, shapes, *changes))
    assert message in str(caught.value)


def test_prototypes_need_classes():
    _, attached, context, _ = setting("full")
    captions = Dataset("x", ["a"], lambda i: None, captions=[["one", "two"]])
    with pytest.raises(UsageError, match="needs classes, and x has none"):
        fd_align.term(Context(context.tokenize, captions, attached))


def test_clusters_need_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(MissingDependency, match=r'pip install "radapter\[clusters\]"'):
        fd_align.term(setting("full")[2], templates=TEMPLATES, clusters=2)
