import dataclasses
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from radapter.data import Dataset
from radapter.evaluation import retrieval
from radapter.evaluation.suite_dataset import Match
from radapter.evaluation.tasks import retrieval as of_suites


def brute_force_rank(query, targets, right):
    """Sort by similarity with every tie put before the positives, find the first positive."""
    scores = [float(np.dot(query, target)) for target in targets]
    order = sorted(range(len(targets)), key=lambda j: (-scores[j], j in right))
    return next(place for place, j in enumerate(order) if j in right)


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_ranks_equal_a_brute_force_sort(chunk):
    generator = np.random.default_rng(0)
    # Integers make the similarities exact and ties common.
    queries = generator.integers(-2, 3, (40, 5)).astype(np.float32)
    targets = generator.integers(-2, 3, (30, 5)).astype(np.float32)
    sizes = generator.integers(1, 4, 40)
    positives = [sorted(generator.choice(30, size, replace=False).tolist()) for size in sizes]
    found = retrieval.best_ranks(
        torch.from_numpy(queries), torch.from_numpy(targets), positives, chunk=chunk
    )
    expected = [
        brute_force_rank(query, targets, set(right))
        for query, right in zip(queries, positives, strict=True)
    ]
    assert found.tolist() == expected


LARGE = """
import resource, torch
from radapter.evaluation import retrieval
queries, targets = torch.randn(500, 64), torch.randn(250_000, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
retrieval.best_ranks(queries, targets, [[i] for i in range(500)])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_size():
    """In a process of its own, whose peak nothing else has raised. All at once would be 500 MB for
    the similarities, as much again for the masked copy, and the masks."""
    grown = int(subprocess.check_output([sys.executable, "-c", LARGE]))
    assert grown < 6e8


def test_a_tie_counts_as_a_miss():
    same = F.normalize(torch.ones(3, 4), dim=-1)
    assert retrieval.best_ranks(same[:1], same, [[1]]).tolist() == [2]
    assert retrieval.best_ranks(same[:1], same, [[0, 1, 2]]).tolist() == [0]


def test_what_is_no_number_is_no_hit():
    queries, targets = torch.eye(2), torch.eye(3, 2)
    targets[0] = torch.nan
    assert retrieval.best_ranks(queries, targets, [[0], [1]]).tolist() == [2, 1]
    assert retrieval.best_ranks(queries * torch.nan, targets, [[0], [1]]).tolist() == [2, 2]


CAPTIONS = [["a cat", "pet"], ["a dog", "pet"], ["pet", "pet"]]


def test_identical_captions_are_one_with_several_pictures():
    task = retrieval.caption_task(CAPTIONS)
    assert task.texts == ["a cat", "pet", "a dog"]
    assert task.queries == [0, 1, 2]
    assert task.pictures_of == [[0], [0, 1, 2], [1]]
    assert task.captions_of == [[0, 1], [2, 1], [1]]
    assert task.copies.tolist() == [1, 1, 1]


def test_identical_captions_apart():
    task = retrieval.caption_task(CAPTIONS, apart=True)
    assert task.texts == ["a cat", "pet", "a dog"]
    assert task.queries == [0, 1, 2, 1, 1, 1]
    assert task.pictures_of == [[0], [0], [1], [1], [2], [2]]
    assert task.captions_of == [[0, 1], [2, 1], [1, 1]]
    assert task.copies.tolist() == [1, 4, 1]
    assert retrieval.shared_captions(CAPTIONS) == 4
    assert retrieval.shared_captions([["a", "a"], ["b"]]) == 0


def test_counted_copies_rank_as_repeated_targets_do():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(-2, 3, (30, 4), generator=generator).float()  # ties are common
    distinct = torch.randint(-2, 3, (8, 4), generator=generator).float()
    words = [[str(int(n)) for n in torch.randint(8, (5,), generator=generator)] for _ in range(30)]
    task = retrieval.caption_task(words, apart=True)
    features = distinct[[int(text) for text in task.texts]]
    found = retrieval.best_ranks(queries, features, task.captions_of, 7, task.copies)
    every = features[task.queries]  # a row for each of the 150 captions
    own = [range(5 * i, 5 * i + 5) for i in range(30)]
    expected = retrieval.best_ranks(queries, every, own)
    assert found.tolist() == expected.tolist()
    assert len(set(found.tolist())) > 5


def brute_force_video_rank(similarity, captions_of, video, apart):
    """Other videos of which a caption is at least as similar as the best own one."""
    own = captions_of[video]
    best = max(similarity[video][text] for text in own)
    others = [
        [text for text in texts if apart or text not in own]
        for number, texts in enumerate(captions_of)
        if number != video
    ]
    return sum(any(similarity[video][text] >= best for text in texts) for texts in others)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_videos_are_ranked_by_their_best_captions(apart, chunk):
    generator = torch.Generator().manual_seed(0)
    videos = torch.randint(-2, 3, (30, 6), generator=generator).float()  # ties are common
    words = [
        [str(int(n)) for n in torch.randint(60, (1 + i % 4,), generator=generator)]
        for i in range(30)
    ]
    task = retrieval.caption_task(words, apart)
    texts = torch.randint(-2, 3, (len(task.texts), 6), generator=generator).float()
    similarity = videos @ texts.T
    expected = [
        brute_force_video_rank(similarity.tolist(), task.captions_of, video, apart)
        for video in range(30)
    ]
    for sides in ((videos, texts), (similarity, None)):
        found = retrieval.best_caption_ranks(*sides, task.captions_of, apart, chunk)
        assert found.tolist() == expected
    assert len(set(expected)) > 5
    if apart:  # among captions, all of another video count that are as near
        among = retrieval.best_ranks(videos, texts, task.captions_of, copies=task.copies)
        assert (found <= among).all()
        assert (found < among).any()


@pytest.mark.parametrize("frames", [4, None])
def test_clips_with_several_captions_are_counted_as_clip4clip_counts_them(frames):
    """Two captions of another item are nearer than the own ones: one video, but two captions."""
    captions = [["a", "b"], ["c", "d"], ["e"]]
    texts = dict(zip("abcde", [[0.6, 0.8], [0, 1], [1, 0], [0.8, 0.6], [-1, 0]], strict=True))
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    dataset = Dataset("made up", ["0", "1", "2"], read=None, captions=captions, frames=frames)
    given = types.SimpleNamespace(
        captions=lambda wanted: torch.tensor([texts[text] for text in wanted]).float(),
        by_tokens=lambda captions: captions,
    )
    described = types.SimpleNamespace(match=Match())
    dataset = of_suites.needs(dataset, described)
    suite = types.SimpleNamespace(identical_captions="apart")
    scored = of_suites.score(
        dataset, features, given, suite=suite, described=described, clusters=np.arange(3)
    )
    ranks = [1, 0, 0] if frames else [2, 0, 0]
    assert scored.further["retrieval"]["image_to_text_mean_rank"] == 1 + sum(ranks) / 3
    assert scored.metrics["image_to_text_r1"].scores.tolist() == [0, 1, 1]
    assert ("clip to caption" in dataset.protocol) == bool(frames)
    assert ("clip to caption" in of_suites.needs(of_one(dataset), described).protocol) is False


def of_one(dataset):
    one = [own[:1] for own in dataset.captions]
    return dataclasses.replace(dataset, captions=one, protocol={})


def test_a_video_that_is_no_number_is_behind_all():
    videos = torch.tensor([[torch.nan, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, torch.nan]])
    found = retrieval.best_caption_ranks(videos, texts, [[0], [1, 2], [3]], True)
    assert found.tolist() == [2, 2, 2]


def test_chance_is_the_recall_of_a_random_order():
    positives = [[0], [0, 1, 2], [3]]
    generator = torch.Generator().manual_seed(0)
    hits = []
    for _ in range(4000):
        first = int(torch.randint(4, (), generator=generator))
        hits.append(np.mean([first in right for right in positives]))
    assert np.mean(hits) == pytest.approx(retrieval.chance(positives, 4), abs=0.02)
