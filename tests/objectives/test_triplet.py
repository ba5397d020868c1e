"""Triplets with the averaged model's features, and the queue of each class, against NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from a_batch import setting

from radapter.errors import UsageError
from radapter.objectives import triplet
from radapter.objectives.terms import Features, Queue


def unit(seed, rows):
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_newest_of_each_class_are_kept():
    queue, kept = Queue(2, of="groups", values=3), {0: [], 1: [], 2: []}
    assert queue.rows == 6
    for step in range(4):
        rows = unit(step, 5)
        groups = torch.tensor([0, 1, 0, 0, 2])[torch.randperm(5)]
        queue.append({"images": rows, "groups": groups})
        assert step == 0 or len(queue.kept["groups"]) <= 6
        queue.advance()
        for group in kept:  # of a batch the first rows count as the newest
            own = [row for row, g in zip(rows, groups.tolist(), strict=True) if g == group]
            kept[group] = (own + kept[group])[:2]
            found = queue.kept["images"][queue.kept["groups"] == group]
            assert torch.equal(found, torch.stack(kept[group]))
    queue.append({"images": unit(9, 5), "groups": torch.zeros(5, dtype=torch.int64)})
    assert (queue.kept["groups"] == 0).sum() == 2  # not before the step was taken
    assert not torch.equal(queue.next["images"][:2], queue.kept["images"][:2])


def test_by_hand(monkeypatch):
    """Two steps; the draws are recorded, and each is of the right class or of another."""
    draws = []
    real = torch.multinomial

    def watched(weights, number, again):
        draws.append(real(weights, number, again))
        return draws[-1]

    monkeypatch.setattr(torch, "multinomial", watched)
    term = triplet.term(setting("r-adapter")[2], margin=0.7, size=3, pairs=2)
    assert (term.teacher, term.reads_texts, term.queue.rows) == ("average", False, 9)
    kept_images, kept_groups = np.zeros((0, 4)), np.zeros(0, dtype=int)
    for step in range(2):
        now, then = unit(step, 6).requires_grad_(), unit(10 + step, 6)
        groups = torch.tensor([0, 1, 0, 1, 0, 2])
        blank = now[:0].detach()
        of = [Features(images, blank, blank, torch.tensor(1.0)) for images in (now, then)]
        draws.clear()
        found = term.loss(*of, {"groups": groups})
        rows = np.concatenate([then.double().numpy(), kept_images])
        classes = np.concatenate([groups.numpy(), kept_groups])
        newest = [i for i in range(len(rows)) if (classes[:i] == classes[i]).sum() < 3]
        rows, classes = rows[newest], classes[newest]
        right, wrong = (draw.numpy() for draw in draws)
        losses = []
        for i, picture in enumerate(now.detach().double().numpy()):
            assert (classes[right[i]] == groups[i].item()).all()
            assert (classes[wrong[i]] != groups[i].item()).all()
            near, far = (np.linalg.norm(picture - rows[d[i]], axis=1) for d in (right, wrong))
            losses.append(np.maximum(0, near - far + 0.7).mean())
        assert found.item() == pytest.approx(np.mean(losses), rel=1e-5)
        found.backward()
        assert now.grad.isfinite().all()
        term.queue.advance()
        kept_images, kept_groups = rows, classes


def test_all_of_a_class_are_drawn():
    term = triplet.term(setting("r-adapter")[2], size=4, pairs=200, margin=5.0)
    blank = unit(0, 0)
    images = unit(1, 4).requires_grad_()
    of = Features(images, blank, blank, torch.tensor(1.0))
    term.loss(of, Features(unit(2, 4), blank, blank, torch.tensor(1.0)),
              {"groups": torch.tensor([0, 0, 0, 1])}).backward()  # fmt: skip
    assert (images.grad.abs().sum(dim=1) > 0).all()


def test_a_batch_of_one_class_has_no_triplets():
    term = triplet.term(setting("r-adapter")[2])
    blank, images = unit(0, 0), unit(1, 3).requires_grad_()
    of = Features(images, blank, blank, torch.tensor(1.0))
    loss = term.loss(of, of, {"groups": torch.zeros(3, dtype=torch.int64)})
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(images.grad, torch.zeros(3, 4))


def test_without_an_average_it_is_refused():
    context = setting("r-adapter")[2]
    context.attached.settings = context.attached.settings.model_copy(update={"momentum": 0.0})
    with pytest.raises(UsageError, match=r"set \"method.average=\{momentum: 0.999, keep: last\}"):
        triplet.term(context)
