"""The heads with a memory against NumPy, and against one another."""

import numpy as np
import pytest
import torch

from radapter.heads import clip_adapter, tip_adapter, tip_adapter_f, xmadapter
from radapter.heads.head import Start
from radapter.losses import cross_entropy

CLASSES, DIM, EXAMPLES, SCALE = 4, 8, 9, 14.0


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture
def start():
    torch.manual_seed(0)
    keys, labels = unit(EXAMPLES, DIM), torch.tensor([0, 1, 2, 3, 0, 1, 2, 2, -1])
    return Start(unit(CLASSES, DIM), SCALE, lambda passes: (keys, labels))


def one_hot(labels):
    return np.array([[float(label == c) for c in range(CLASSES)] for label in labels])


def normalised(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("module", [tip_adapter, tip_adapter_f])
def test_tip_adapter(start, module):
    f, (keys, labels) = unit(5, DIM), start.examples(0)
    head = module.head(start, strength=1.7, sharpness=3.1)
    affinity = np.exp(-3.1 * (1 - f.double().numpy() @ keys.double().numpy().T))
    expected = SCALE * f.double().numpy() @ start.weights.double().numpy().T
    expected = expected + 1.7 * affinity @ one_hot(labels.tolist())
    np.testing.assert_allclose(head(f).detach(), expected, atol=1e-5)
    trained = [name for name, _ in head.named_parameters()]
    assert trained == (["keys"] if module is tip_adapter_f else [])


@pytest.mark.parametrize("last_relu", [True, False])
def test_clip_adapter(start, last_relu):
    f = unit(5, DIM)
    head = clip_adapter.head(start, ratio=0.3, reduction=2, last_relu=last_relu)
    down, up = (p.detach().double().numpy() for p in (head.down, head.up))
    assert down.shape == (4, DIM)
    x = f.double().numpy()
    adapted = np.maximum(x @ down.T, 0) @ up.T
    assert (adapted < 0).any()
    mixed = 0.3 * (np.maximum(adapted, 0) if last_relu else adapted) + 0.7 * x
    expected = SCALE * normalised(mixed) @ start.weights.double().numpy().T
    np.testing.assert_allclose(head(f).detach(), expected, atol=1e-5)
    assert [name for name, _ in head.named_parameters()] == ["down", "up"]
    again = clip_adapter.of(head.state_dict())
    assert torch.equal(again(f), head(f))


def test_clip_adapter_is_the_released_one_with_its_last_relu(start):
    """`ratio = 0.2`, a reduction of 4, no biases and two ReLUs, of features before normalisation:
    a length of them cancels."""
    f = unit(5, DIM)
    head = clip_adapter.head(start, last_relu=True)
    assert not clip_adapter.head(start).last_relu  # a quirk of released code is no default
    layers = torch.nn.Sequential(
        torch.nn.Linear(DIM, DIM // 4, bias=False), torch.nn.ReLU(),
        torch.nn.Linear(DIM // 4, DIM, bias=False), torch.nn.ReLU(),
    )  # fmt: skip
    layers.load_state_dict({"0.weight": head.down, "2.weight": head.up})
    long = 9.0 * f
    mixed = 0.2 * layers(long) + (1 - 0.2) * long
    expected = SCALE * mixed / mixed.norm(dim=-1, keepdim=True) @ start.weights.T
    torch.testing.assert_close(head(f), expected, atol=1e-5, rtol=0)


def test_xmadapter(start):
    f, (keys, labels) = unit(5, DIM), start.examples(0)
    settings = {"strength": 1.7, "sharpness": 3.1, "image_share": 0.7, "disagreement": 2.0}
    head = xmadapter.head(start, **settings, reduction=2)
    with torch.no_grad():
        head.query_up.normal_()
        head.text_up.normal_()
    own = {name: t.detach().double().numpy() for name, t in head.state_dict().items()}
    x, k, w = (t.double().numpy() for t in (f, keys, start.weights))
    query = x + np.maximum(x @ own["query_down"].T, 0) @ own["query_up"].T
    text = w[labels.numpy()] + np.maximum(k @ own["text_down"].T, 0) @ own["text_up"].T
    images = np.exp(-3.1 * (1 - x @ k.T))
    texts = np.exp(-3.1 * (1 - normalised(query) @ normalised(text).T))
    fused = 0.7 * images + 0.3 * texts
    expected = SCALE * x @ w.T + 1.7 * fused @ one_hot(labels.tolist())
    np.testing.assert_allclose(head(f).detach(), expected, atol=1e-5)
    apart = np.abs(images - texts).mean(axis=1)
    weights = (1 + 2.0 * apart / apart.mean()) / 3.0
    np.testing.assert_allclose(head.sample_weights(f), weights, atol=1e-6)
    assert weights.mean() == pytest.approx(1)


def test_at_image_share_one_and_without_weights_xmadapter_is_tip_adapter(start):
    """Before training and, against Tip-Adapter-F, after ten steps of it."""
    settings = {"strength": 1.7, "sharpness": 3.1}
    f, labels = unit(12, DIM), torch.arange(12) % CLASSES
    ours = xmadapter.head(start, **settings, image_share=1.0, fusion="fixed", disagreement=0.0)
    tip, tip_f = tip_adapter.head(start, **settings), tip_adapter_f.head(start, **settings)
    torch.testing.assert_close(ours(f), tip(f), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.sample_weights(f), torch.ones(12), atol=0, rtol=0)
    for head in (ours, tip_f):
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            weights = head.sample_weights(f) if head is ours else None
            cross_entropy(head(f), labels, weights=weights).backward()
            optimizer.step()
    assert not torch.allclose(tip_f(f), tip(f), atol=1e-3)
    torch.testing.assert_close(ours(f), tip_f(f), atol=1e-6, rtol=0)


@pytest.mark.parametrize("module", [tip_adapter, xmadapter])
def test_the_search_finds_the_best_point_of_its_grid(start, module, monkeypatch):
    monkeypatch.setattr(tip_adapter, "STRENGTHS", 3)
    monkeypatch.setattr(module, "SHARPNESSES", 3)
    settings = {"strength_to": 30.1, "sharpness_to": 6.1, "fusion": "searched"}
    grid = {"SHARPNESSES": [0.1, 2.1, 4.1], "STRENGTHS": [0.1, 10.1, 20.1]}
    f, labels = unit(40, DIM), torch.arange(40) % CLASSES
    head = module.head(start)
    shares = xmadapter.SHARES if module is xmadapter else [1.0]
    scores = {}
    for sharpness in grid["SHARPNESSES"]:
        for share in shares:
            for strength in grid["STRENGTHS"]:
                given = {"image_share": share} if module is xmadapter else {}
                other = module.head(start, strength=strength, sharpness=sharpness, **given)
                other.load_state_dict(
                    {**head.state_dict(), "strength": torch.tensor(strength),
                     "sharpness": torch.tensor(sharpness),
                     **{k: torch.tensor(v) for k, v in given.items()}}
                )  # fmt: skip
                right = (other(f).argmax(dim=1) == labels).double().mean()
                scores[(strength, sharpness, share)] = float(right)
    tensors, facts = module.search(head, f, labels, settings)
    assert facts["accuracy"] == max(scores.values())
    assert max(scores.values()) > min(scores.values())
    point = facts["strength"], facts["sharpness"], facts.get("image_share", 1.0)
    assert point == next(p for p, score in scores.items() if score == max(scores.values()))
    assert float(tensors["strength"]) == pytest.approx(facts["strength"])


def test_the_search_leaves_a_fixed_image_share(start):
    head = xmadapter.head(start, fusion="fixed", image_share=0.25)
    settings = {"strength_to": 3.0, "sharpness_to": 7.0, "fusion": "fixed"}
    labels = torch.arange(8) % CLASSES
    tensors, facts = xmadapter.search(head, unit(8, DIM), labels, settings)
    assert facts["image_share"] == 0.25
    assert set(tensors) == {"strength", "sharpness"}


def test_a_learned_image_share_has_a_gradient(start):
    head = xmadapter.head(start, fusion="learned")
    cross_entropy(head(unit(8, DIM)), torch.arange(8) % CLASSES).backward()
    assert head.image_share.grad.abs() > 0
