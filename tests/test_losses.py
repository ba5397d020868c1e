import math

import numpy as np
import open_clip.loss
import pytest
import torch
import torch.nn.functional as F

from radapter.losses import cross_entropy, mpm_nce

GROUPS = {
    "distinct": [0, 1, 2, 3, 4, 5],
    "pairs": [0, 0, 1, 1, 2, 2],
    "uneven": [5, 5, 5, -1, 9, 5],
    "two": [0, 1, 0, 1, 0, 1],
    "one": [4, 4, 4, 4, 4, 4],
}
SETTINGS = [(0.0, 0.0), (0.02, 0.05), (0.3, 0.0), (0.0, 0.1), (1.0, 0.2)]


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def by_the_formula(v, t, y, kappa, epsilon, delta):
    """METHOD's definition, term by term, in float64."""
    v, t, b = np.asarray(v, np.float64), np.asarray(t, np.float64), len(y)
    logits, targets = np.zeros((b, b)), np.zeros((b, b))
    for i in range(b):
        positives = [j for j in range(b) if y[j] == y[i]]
        negatives = b - len(positives)
        mass = epsilon if negatives else 0.0
        for j in range(b):
            is_positive = j in positives
            logits[i, j] = kappa * (float(v[i] @ t[j]) + (0.0 if is_positive else delta))
            targets[i, j] = (1 - mass) / len(positives) if is_positive else mass / negatives
    total = 0.0
    for i in range(b):
        row, column = logits[i, :], logits[:, i]
        row_sum = row.max() + math.log(sum(math.exp(x - row.max()) for x in row))
        column_sum = column.max() + math.log(sum(math.exp(x - column.max()) for x in column))
        for j in range(b):
            total -= targets[i, j] * (row[j] - row_sum) / b
            total -= targets[i, j] * (column[j] - column_sum) / b
    return total / 2


@pytest.mark.parametrize("kappa", [1.0, 14.3, 100.0])
@pytest.mark.parametrize(("smoothing", "margin"), SETTINGS)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_value_is_the_formula(groups, smoothing, margin, kappa):
    v, t = unit(6, 8, seed=1), unit(6, 8, seed=2)
    loss = mpm_nce(
        v, t, torch.tensor(groups), logit_scale=kappa, smoothing=smoothing, margin=margin
    )
    expected = by_the_formula(v, t, groups, kappa, smoothing, margin)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=2e-6, abs=2e-5)


@pytest.mark.parametrize(("smoothing", "margin"), SETTINGS)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_gradients_are_finite_differences_of_the_formula(groups, smoothing, margin):
    kappa, h = 10.0, 1e-6
    v, t = unit(6, 5, seed=3).requires_grad_(), unit(6, 5, seed=4).requires_grad_()
    scale = torch.tensor(kappa, requires_grad=True)
    mpm_nce(
        v, t, torch.tensor(groups), logit_scale=scale, smoothing=smoothing, margin=margin
    ).backward()
    arrays = [x.detach().numpy().astype(np.float64) for x in (v, t)]
    for which, tensor in enumerate((v, t)):
        for place in np.ndindex(6, 5):
            sides = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[which][place] += sign * h
                sides.append(by_the_formula(*moved, groups, kappa, smoothing, margin))
            expected = (sides[0] - sides[1]) / (2 * h)
            assert tensor.grad[place].item() == pytest.approx(expected, rel=1e-4, abs=3e-6)
    up, down = (
        by_the_formula(*arrays, groups, kappa + s, smoothing, margin) for s in (1e-5, -1e-5)
    )
    assert scale.grad.item() == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kappa", [1 / 0.07, 100.0])
def test_distinct_groups_are_the_loss_of_clip(kappa):
    v, t = unit(16, 32, seed=5), unit(16, 32, seed=6)
    for features in (v, t):
        features.requires_grad_()
    scale = torch.tensor(kappa)
    ours = mpm_nce(v, t, torch.arange(16), logit_scale=scale)
    ours_grad = torch.autograd.grad(ours, (v, t))
    theirs = open_clip.loss.ClipLoss()(v, t, scale)
    theirs_grad = torch.autograd.grad(theirs, (v, t))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-5, atol=1e-7 * kappa)


@pytest.mark.parametrize("smoothing", [0.0, 0.02, 1.0])
def test_one_group_has_no_negatives_and_keeps_the_smoothing_on_positives(smoothing):
    v, t = unit(5, 8, seed=7).requires_grad_(), unit(5, 8, seed=8)
    groups = torch.zeros(5, dtype=torch.long)
    loss = mpm_nce(v, t, groups, logit_scale=100.0, smoothing=smoothing, margin=0.1)
    logits = 100.0 * v.detach().double() @ t.double().T
    expected = -(F.log_softmax(logits, 0).mean() + F.log_softmax(logits, 1).mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert torch.isfinite(v.grad).all()


def test_gradients_are_finite_and_right_at_a_wide_gap():
    """Positives at cosine 0 and negatives at 1: their softmax underflows in fp32."""
    v = torch.eye(4)[[0, 1]].requires_grad_()
    t = torch.eye(4)[[1, 0]].requires_grad_()
    loss = mpm_nce(v, t, torch.arange(2), logit_scale=100.0, margin=0.05)
    loss.backward()
    assert loss.item() == pytest.approx(105.0, rel=1e-6)
    for features in (v, t):
        assert torch.isfinite(features.grad).all()
        assert features.grad.abs().max() > 10


def test_low_precision_features_are_computed_in_fp32():
    v, t = unit(8, 64, seed=9).bfloat16(), unit(8, 64, seed=10).bfloat16()
    groups, settings = torch.arange(8) // 2, {"logit_scale": 100.0, "margin": 0.05}
    expected = mpm_nce(v.float(), t.float(), groups, **settings)
    assert torch.equal(mpm_nce(v, t, groups, **settings), expected)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mpm_nce(v.float(), t.float(), groups, **settings)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)


def test_a_margin_makes_every_negative_harder():
    v, t, groups = unit(8, 16, seed=11), unit(8, 16, seed=12), torch.arange(8) // 2
    losses = [mpm_nce(v, t, groups, logit_scale=20.0, margin=m).item() for m in (0, 0.05, 0.2)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_cross_entropy_and_its_gradient_are_the_formula(smoothing, scale):
    random = np.random.default_rng(0)
    logits, classes = scale * random.normal(size=(7, 5)), random.integers(0, 5, 7)
    target = (1 - smoothing) * np.eye(5)[classes] + smoothing / 5
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    given = torch.tensor(logits, requires_grad=True)
    value = cross_entropy(given, torch.tensor(classes), smoothing=smoothing)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(-(target * log_p).sum() / 7, rel=1e-5)
    np.testing.assert_allclose(given.grad, (np.exp(log_p) - target) / 7, atol=1e-6)
