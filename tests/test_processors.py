"""Processors at hand are those of this process, and so are those who read for it."""

import os

import pytest

from radapter import processors


@pytest.fixture
def machine(monkeypatch, tmp_path):
    def made(cores, quota=None, ranks=None):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda pid: set(range(100, 100 + cores)), raising=False
        )
        monkeypatch.setattr(os, "cpu_count", lambda: 192)
        monkeypatch.setattr(processors, "QUOTA", tmp_path / "cpu.max")
        if quota is not None:
            processors.QUOTA.write_text(quota)
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        if ranks is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))

    return made


@pytest.mark.parametrize(
    ("cores", "quota", "expected"),
    [
        (4, None, 4),
        (64, "max 100000\n", 64),
        (64, "800000 100000\n", 8),
        (64, "50000 100000\n", 1),
        (2, "800000 100000\n", 2),
        (2, "odd", 2),
    ],
)
def test_affinity_and_the_quota_of_a_container_count(machine, cores, quota, expected):
    machine(cores, quota)
    assert processors.at_hand() == expected


def test_where_there_is_no_affinity_all_count(machine, monkeypatch):
    machine(4)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors.at_hand() == 192


@pytest.mark.parametrize(
    ("cores", "ranks", "pairs", "device", "expected"),
    [
        (16, None, 10**6, "cuda", 15),
        (192, 8, 10**6, "cuda", 23),
        (192, None, 10**6, "cuda", 24),
        (1, None, 10, "cuda", 1),
        (4, 8, 10, "cuda", 1),
        (2, None, 10**6, "cpu", 1),
        (64, None, 10**6, "cpu", 4),
        (64, None, 499, "cpu", 0),
        (1, None, 10**6, "cpu", 0),
    ],
)
def test_who_reads(machine, cores, ranks, pairs, device, expected):
    machine(cores, ranks=ranks)
    assert processors.readers(pairs, device) == expected


def test_those_who_read_for_processes_that_are_not_started_yet(machine):
    machine(64)
    assert processors.readers(10**6, "cuda", 8) == 7


@pytest.mark.parametrize(
    ("cores", "ranks", "expected"),
    [(1, None, 1), (6, None, 6), (64, None, 16), (64, 8, 8), (4, 8, 1)],
)
def test_who_decodes(machine, cores, ranks, expected):
    machine(cores, ranks=ranks)
    assert processors.decoders() == expected
