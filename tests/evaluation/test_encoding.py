"""Reading ahead: the order is kept, two batches are in memory, an error ends it."""

import threading
import time

import pytest
import torch

from radapter.errors import BrokenInput
from radapter.evaluation.encoding import encode_batches


class Mean:
    """A runtime whose feature is the picture's number."""

    def encode_image(self, pixels):
        return pixels.mean(dim=(1, 2, 3))[:, None]


def encode(read, n, **more):
    return encode_batches(
        Mean(), lambda number: torch.full((3, 2, 2), float(number)), read, range(n), **more
    )


def test_the_order_is_kept_when_the_first_is_the_slowest():
    def read(index):
        time.sleep(0.02 * (3 - index % 4))
        if index in (2, 9):
            raise BrokenInput(f"picture {index}")
        return index

    batches = list(encode(read, 10, batch_size=4, workers=4))
    assert [batch.indices for batch in batches] == [[0, 1, 3], [4, 5, 6, 7], [8]]
    assert [batch.features[:, 0].tolist() for batch in batches] == [[0, 1, 3], [4, 5, 6, 7], [8]]
    assert [batch.failed for batch in batches] == [{2: "picture 2"}, {}, {9: "picture 9"}]


def test_the_next_batch_is_read_meanwhile_and_no_further():
    reading, threads = [], set()

    def read(index):
        reading.append(index)
        threads.add(threading.get_ident())
        return index

    batches = encode(read, 12, batch_size=3, workers=2)
    for number in range(4):
        next(batches)
        for _ in range(200):
            if len(reading) == min(12, 3 * (number + 2)):
                break
            time.sleep(0.01)
        assert sorted(reading) == list(range(min(12, 3 * (number + 2))))
    assert threading.get_ident() not in threads
    assert len(threads) <= 2


def test_what_is_no_broken_picture_is_raised():
    def read(index):
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        list(encode(read, 3, batch_size=2))
