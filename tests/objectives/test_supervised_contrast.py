"""Supervised contrast against NumPy, picture by picture."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from a_batch import setting

from radapter.errors import UsageError
from radapter.objectives import supervised_contrast
from radapter.objectives.terms import Features


def by_hand(images, groups, domains, temperature, across):
    losses = []
    for i, row in enumerate(images):
        alike = [a for a in range(len(images)) if a != i and groups[a] == groups[i]]
        right = [a for a in alike if not across or domains[a] != domains[i]]
        others = [a for a in range(len(images)) if a != i and (a in right or a not in alike)]
        if right:
            total = sum(np.exp(row @ images[a] / temperature) for a in others)
            terms = [-np.log(np.exp(row @ images[p] / temperature) / total) for p in right]
            losses.append(np.mean(terms))
    return np.mean(losses) if losses else 0.0


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    ("groups", "domains"),
    [
        ([0, 1, 0, 1, 0, 2], [0, 0, 1, 0, 0, 0]),
        ([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1]),
        ([3, 3, 3, 3, 3, 3], [1, 1, 1, 1, 1, 1]),
    ],
    ids=["several", "each alone", "all alike"],
)
def test_by_hand(groups, domains, across):
    term = supervised_contrast.term(setting("full")[2], temperature=0.3, across_domains=across)
    images = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    images.requires_grad_()
    blank = images[:0].detach()
    batch = {"groups": torch.tensor(groups), "domains": torch.tensor(domains)}
    found = term.loss(Features(images, blank, blank, torch.tensor(1.0)), None, batch)
    expected = by_hand(images.detach().double().numpy(), groups, domains, 0.3, across)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert images.grad.isfinite().all()
    assert not term.reads_texts


def test_data_without_what_it_compares_is_refused():
    context = setting("full")[2]
    without = dataclasses.replace(context.dataset, domains=[])
    with pytest.raises(UsageError, match="across_domains is true, and the data has no domains"):
        supervised_contrast.term(dataclasses.replace(context, dataset=without), across_domains=True)
    without = dataclasses.replace(context.dataset, class_names=[])
    with pytest.raises(UsageError, match="compares pictures of classes"):
        supervised_contrast.term(dataclasses.replace(context, dataset=without))
