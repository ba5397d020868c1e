"""What decides on a classifier file: probabilities that are off by what matters, and no others."""

import numpy as np
import pytest
import tiny
import torch
from tiny_bundle import FACTS

from radapter import bundle
from radapter.evaluation.parity import TOLERANCES
from radapter.export import Contents, export_bundle
from radapter.export.cases import white_noise
from radapter.export.further_files import _agreement
from radapter.export.verify import closeness
from radapter.runtimes.pytorch import PyTorchRuntime

SCALE, DIM, ERROR = 100.0, 512, {"fp32": 1e-6, "fp16": 1e-3}
COUNTS = [2, 3, 1000]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=COUNTS)
def made(request):
    """Classes with a common direction, as CLIP's are, and pictures: undecided, and of classes."""
    rng = np.random.default_rng(request.param)
    common = unit(rng.normal(size=(1, DIM)))
    heads = unit(2 * common + unit(rng.normal(size=(request.param, DIM))))
    undecided = unit(0.3 * common + unit(rng.normal(size=(20, DIM))))
    spread = heads - heads.mean(axis=0)
    basis = np.linalg.svd(spread, full_matrices=False)[2][: min(request.param - 1, 100)]
    undecided = unit(undecided - undecided @ basis.T @ basis)  # as good as equal to every class
    decided = unit(
        0.2 * heads[rng.integers(0, request.param, 20)] + unit(rng.normal(size=(20, DIM)))
    )
    return heads, undecided, decided


@pytest.mark.parametrize("precision", ERROR)
def test_a_good_file_passes_however_undecided_its_pictures_are(made, precision):
    heads, *pictures = made
    for features in pictures:
        noise = unit(np.random.default_rng(1).normal(size=features.shape))
        expected = softmax(SCALE * features @ heads.T)
        output = softmax(SCALE * unit(features + ERROR[precision] * noise) @ heads.T)
        assert closeness(output, expected).min() >= TOLERANCES[precision].cosine
        assert _agreement(torch.tensor(expected), torch.tensor(output)) == 1


def another_scale(features, heads):
    return 1.03 * SCALE * features @ heads.T


def other_order(features, heads):
    return SCALE * features @ heads[::-1].T


def one_class_is_wrong(features, heads):
    heads = heads.copy()
    heads[-1] = unit(np.random.default_rng(5).normal(size=(1, DIM)))[0]
    return SCALE * features @ heads.T


def other_pictures(features, heads):
    return SCALE * features[::-1] @ heads.T


def no_classes(features, heads):
    return np.zeros((len(features), len(heads)))


BROKEN = [another_scale, other_order, one_class_is_wrong, other_pictures, no_classes]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_does_not(made, broken):
    heads, _, decided = made
    output = softmax(broken(decided, heads))
    expected = softmax(SCALE * decided @ heads.T)
    allowed = TOLERANCES["fp32" if broken is another_scale else "int8"].cosine
    assert closeness(output, expected).min() < allowed


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_may_be_off_with_two_classes(precision):
    """Two in a thousand, seven in a thousand, seven in a hundred."""
    e = np.sqrt(2 * (1 - TOLERANCES[precision].cosine))
    for share in (0.5, 0.6, 0.8, 0.95):
        expected = np.array([[share, 1 - share]])
        for sign in (-1, 1):
            logs = np.log(expected) + sign * np.array([[0.99, -0.99]]) * e
            output = softmax(logs)
            assert closeness(output, expected)[0] >= TOLERANCES[precision].cosine
            assert abs(output - expected).max() <= e / 2
    off = softmax(np.array([[1.01 * e, -1.01 * e]]))
    assert closeness(off, np.array([[0.5, 0.5]]))[0] < TOLERANCES[precision].cosine
    assert e / 2 == pytest.approx({"fp32": 0.0022, "fp16": 0.0071, "int8": 0.071}[precision], 0.02)


def test_classes_that_tie_are_one_answer_and_others_are_not():
    expected = torch.tensor([[0.5001, 0.4999], [0.7, 0.3]])
    assert _agreement(expected, torch.tensor([[0.4999, 0.5001], [0.6, 0.4]])) == 1
    assert _agreement(expected, torch.tensor([[0.4999, 0.5001], [0.4, 0.6]])) == 0.5
    many = torch.full((1, 1000), 0.0009)
    many[0, 0] = 0.05
    answered = torch.zeros(1, 1000).index_fill(1, torch.tensor([7]), 1.0)
    assert _agreement(many, answered) == 0


@pytest.mark.slow
def test_a_classifier_is_exported_though_a_picture_is_undecided(tmp_path):
    """With the logit scale of CLIP; the classes differ only in what the first picture lacks."""
    loaded = tiny.build()
    loaded.model.logit_scale.data.fill_(np.log(100.0))
    (first,) = PyTorchRuntime(loaded).encode_image(white_noise(1, (32, 32)))
    way = torch.randn(16, generator=torch.Generator().manual_seed(0))
    way = 0.3 * torch.nn.functional.normalize(way - way @ first * first, dim=0)
    head = {"names": ["a", "b"], "features": torch.stack([first + way, first - way])}
    manifest = export_bundle(loaded, tmp_path / "b", Contents(classifier=head), facts=FACTS)
    assert manifest["models"][bundle.CLASSIFIER]["max_abs_difference"] < 1e-4
