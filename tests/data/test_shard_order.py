"""Batches from shards: every sample once, in few shards at a time, the same whoever reads them."""

import itertools

import pytest
import torch

from radapter.data.pairs import BatchOrder
from radapter.data.shard_order import _through_buffer, shard_order

SHARDS = [number for number in range(12) for _ in range(10)]  # 120 samples


def order(batch_size=12, *, seed=0, shards=SHARDS, buffer=1, streams=1):
    generator = torch.Generator().manual_seed(seed)
    found = shard_order(shards, batch_size, generator, buffer=buffer, streams=streams)
    return found.view(-1, batch_size).tolist()


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("buffer", [1, 25, 1000])
def test_every_sample_once_and_the_short_batch_left_out(buffer, streams):
    for shards in (SHARDS, SHARDS[:115]):
        batches = order(8, shards=shards, buffer=buffer, streams=streams)
        seen = [item for batch in batches for item in batch]
        assert len(set(seen)) == len(seen) == len(shards) // 8 * 8


def test_shards_are_shuffled_and_read_from_start_to_end():
    visited = []
    for seed in (0, 1):
        read = [item for batch in order(seed=seed) for item in batch]
        assert all(b == a + 1 for a, b in itertools.pairwise(read) if b % 10)
        visited.append(list(dict.fromkeys(item // 10 for item in read)))
    assert sorted(visited[0]) == sorted(visited[1]) == list(range(12))
    assert len({tuple(found) for found in (*visited, range(12))}) == 3


def test_the_buffer_lets_no_item_come_forward_by_more_than_its_size():
    items = torch.arange(5000)
    found = _through_buffer(items, 50, torch.Generator().manual_seed(3)).tolist()
    assert sorted(found) == items.tolist()
    ahead = [item - place for place, item in enumerate(found)]
    assert max(ahead) == 49
    # An item leaves with chance 1/50 at every draw, so it waits 49 draws on average.
    waited = [place - max(0, item - 49) for place, item in enumerate(found)][:4000]
    assert 44 < sum(waited) / len(waited) < 54


@pytest.mark.parametrize("buffer", [1, 15])
def test_devices_read_shards_of_their_own(buffer):
    """Each of four takes its quarter of every batch: three shards, and those at its ends."""
    batches = order(8, buffer=buffer, streams=4)
    for device in range(4):
        shards = {item // 10 for batch in batches for item in batch[2 * device : 2 * device + 2]}
        assert len(shards) == 3
    everything = order(8, buffer=buffer, streams=1)
    assert len({item // 10 for batch in everything for item in batch[:2]}) > 6


def test_an_order_goes_on_in_the_middle_of_an_epoch():
    def batches(start):
        return list(
            BatchOrder(
                120, 8, 3, 5, start, lambda g: shard_order(SHARDS, 8, g, buffer=20, streams=2)
            )
        )

    whole = batches(0)
    assert len(whole) == 45
    assert whole[20:] == batches(20)
    epochs = [[item for batch in part for _, item in batch] for part in (whole[:15], whole[15:30])]
    assert epochs[0] != epochs[1]
    assert set(epochs[0]) == set(epochs[1]) == set(range(120))
