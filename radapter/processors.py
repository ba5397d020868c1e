"""How many processors are at hand, and how many processes read pictures with them."""

from __future__ import annotations

import os
from pathlib import Path

FEW = 500
"""Pairs: a CPU trains on fewer for so long that nothing is gained by reading them meanwhile."""
MOST = {"cuda": 24, "cpu": 4}
"""A reading process holds two batches in shared memory; a CPU computes far longer than it reads."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def at_hand() -> int:
    """Processors that this process may use: not those of the machine that are another's, by its
    affinity (Slurm, taskset) or by its container's quota (docker --cpus, Kubernetes' limits)."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or no limit: "max 100000"
        return count


def _share(processes: int | None = None) -> int:
    # torchrun's number of those on this machine
    return at_hand() // (processes or int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def decoders() -> int:
    """How many threads decode pictures for a model that is not trained: more share too much."""
    return max(1, min(16, _share()))


def readers(pairs: int, device: str, processes: int | None = None) -> int:
    """How many processes read for one that trains: its share of the processors but one, which it
    uses itself.

    Args:
        pairs: of the training data.
        device: `cuda` or `cpu`.
        processes: that share this machine; None: as many as torchrun says, else this one alone.
    """
    if device == "cpu" and pairs < FEW:
        return 0
    own = _share(processes)
    least = 1 if device == "cuda" else 0  # a GPU's process mostly waits
    return max(least, min(MOST[device], own - 1))
