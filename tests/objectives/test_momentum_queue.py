"""The term `momentum-queue` is its formula over several steps, in NumPy and float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from a_batch import setting

from radapter.objectives import momentum_queue
from radapter.objectives.terms import Features

SCALE, SIZE, SOFT = 9.0, 8, 0.4
TEXT_OF = [0, 1, 2, 0, 1]
OWN = np.array([False, False, True, False, False])


def drawn(seed):
    """Features of a step: of the model and of its average, pictures and distinct texts; groups."""
    random = np.random.default_rng(seed)
    of = [random.normal(size=(n, 6)) for n in (5, 3, 5, 3)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in of], random.integers(0, 3, 5)


def softmax(rows):
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(seed, kept, share):
    """The loss of a step, and the pairs that are kept after it: (picture, text, group, own)."""
    (images, texts, mean_images, mean_texts), groups = drawn(seed)
    new = [
        (mean_images[i], mean_texts[TEXT_OF[i]], groups[i], OWN[i], TEXT_OF[i], i) for i in range(5)
    ]
    every = new + kept

    def right(i, j):  # text of pair j, picture of pair i
        here = i[5] is not None and j[5] is not None
        if here and i[5] == j[5]:
            return True
        if j[3]:  # a caption of its own picture
            return here and i[4] == j[4]
        return i[2] == j[2]

    sums = []
    for now, then, to, is_right in (
        (images, mean_images, [p[1] for p in every], lambda i, j: right(i, j)),
        (texts[TEXT_OF], mean_texts[TEXT_OF], [p[0] for p in every], lambda i, j: right(j, i)),
    ):
        hard = np.array([[float(is_right(i, j)) for j in every] for i in new])
        targets = (1 - share) * hard / hard.sum(1, keepdims=True)
        targets += share * softmax(SCALE * then @ np.array(to).T)
        sums.append(-(targets * np.log(softmax(SCALE * now @ np.array(to).T))).sum(1).mean())
    return sum(sums) / 2, [(*pair[:4], pair[4], None) for pair in every][:SIZE]


@pytest.mark.parametrize("rise", [0.0, 0.5])
def test_it_is_its_formula_step_by_step(rise):
    context = setting("full")[2]
    context.attached.steps = 8
    term, kept = momentum_queue.term(context, size=SIZE, soft=SOFT, rise=rise), []
    for step in range(4):
        (images, texts, *theirs), groups = drawn(step)
        leaves = [torch.tensor(x).float().requires_grad_() for x in (images, texts, *theirs)]
        now, then = (
            Features(a, b, b[:0], torch.tensor(SCALE)) for a, b in (leaves[:2], leaves[2:])
        )
        batch = {
            "groups": torch.tensor(groups), "text_of": torch.tensor(TEXT_OF),
            "own": torch.tensor(OWN),
        }  # fmt: skip
        context.attached.updates = step
        share = SOFT * min(1, step / 4) if rise else SOFT
        expected, after = by_hand(step, kept, share)
        for _ in range(2):  # a step that is not taken leaves nothing
            value = term.loss(now, then, batch)
            assert value.item() == pytest.approx(expected, rel=1e-5)
        kept = after
        term.queue.advance()
        assert len(term.queue.kept["images"]) == len(kept) == min(SIZE, 5 * step + 5)
        assert not any(rows.requires_grad for rows in term.queue.kept.values())


def test_alone_in_its_first_step_it_is_the_contrastive_loss():
    """Without soft targets, of one model, with an empty queue."""
    context = setting("full")[2]
    (images, texts, *_), _ = drawn(0)
    images, texts = torch.tensor(images[:3]).float(), torch.tensor(texts).float()
    features = Features(images, texts, texts[:0], torch.tensor(SCALE))
    batch = {
        "groups": torch.arange(3), "text_of": torch.arange(3),
        "own": torch.zeros(3, dtype=torch.bool),
    }  # fmt: skip
    value = momentum_queue.term(context, soft=0.0).loss(features, features, batch)
    logits = SCALE * images @ texts.T
    own = torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(value, expected)
