"""Turns of calls, their times, and the figures made of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WARM_UP = 3  # calls: the first allocates, and some runtimes record a shape that comes again
# Idle OpenMP threads of torch spin for up to 10 ms after a call (measured) and would take the
# processor from whoever comes next.
PAUSE = 0.02


@dataclass
class Case:
    """One tower in one runtime on one batch, and how long each of its calls took."""

    tower: str
    runtime: str
    precision: str
    device: str
    batch: int
    threads: int | None
    call: Callable[[], Tensor]
    reference: bool
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of every call, by round"""
    expected: float = 0
    """Seconds of a call, from the warm-up"""
    features: Tensor | None = None


def measure(
    cases: Sequence[Case],
    rounds: int,
    seconds: float,
    on_progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> None:
    """Warm up, then give every case one turn a round.

    torch's number of threads is that of the last case afterwards.

    Args:
        cases: what is compared; their `rounds` and `features` are filled.
        rounds: how many turns each has.
        seconds: of a turn. At least one call is made, however long it takes.
        on_progress: called with turns done, turns in all (the warm-up is one), and what comes next.
    """
    done, total = 0, len(cases) * (rounds + 1)
    for number in range(rounds + 1):
        # Alternate the direction, so that no case always follows the same one.
        for case in cases if number % 2 == 0 else reversed(cases):
            what = f"{case.tower} {case.batch}, {case.runtime} {case.precision}"
            on_progress(done, total, what)
            if case.threads is not None:
                torch.set_num_threads(case.threads)
            time.sleep(PAUSE)
            if number == 0:
                _warm_up(case)
            else:
                case.rounds.append(_turn(case, seconds))
            done += 1
    on_progress(done, total, "")


def _warm_up(case: Case) -> None:
    spent = []
    for _ in range(WARM_UP):
        start = time.perf_counter()
        case.features = case.call()
        spent.append(time.perf_counter() - start)
    case.expected = min(spent)


def _turn(case: Case, seconds: float) -> list[float]:
    """Seconds of each call. Where there will be several, one more comes first and is not counted:
    it brings back what the others drove out of the caches."""
    if case.expected < seconds:
        case.call()
    spent: list[float] = []
    end = time.perf_counter() + seconds
    while not spent or time.perf_counter() < end:
        start = time.perf_counter()
        case.call()
        spent.append(time.perf_counter() - start)
    return spent


def figures(case: Case, cases: Sequence[Case]) -> dict[str, Any]:
    """The figures of a case, as `bench` returns them, beside PyTorch's among `cases`."""
    calls = [seconds for turn in case.rounds for seconds in turn]
    same = [c for c in cases if c.reference and (c.tower, c.batch) == (case.tower, case.batch)]
    full = [c for c in same if c.precision == "fp32"]
    on = [c for c in same if (c.device, c.threads) == (case.device, case.threads)]
    # fp16 uses a GPU's tensor cores, fp32 does not: that gain is not the engine's.
    half = [c for c in on if c.precision == "fp16" and case.precision != "fp32"]
    equal = half if half and not case.reference else [c for c in on if c.precision == "fp32"]
    speedups = [
        statistics.median(theirs) / statistics.median(own)
        for c in equal
        for theirs, own in zip(c.rounds, case.rounds, strict=True)
    ]
    return {
        "tower": case.tower,
        "runtime": case.runtime,
        "precision": case.precision,
        "device": case.device,
        "batch": case.batch,
        "threads": case.threads,
        "calls": len(calls),
        "median_ms": 1000 * statistics.median(calls),
        "p95_ms": 1000 * float(np.percentile(calls, 95)),
        "per_second": case.batch * len(calls) / sum(calls),
        "speedup": statistics.median(speedups) if speedups else None,
        "speedup_range": [min(speedups), max(speedups)] if speedups else None,
        "speedup_over": equal[0].precision if equal else None,
        "worst_cosine": _worst_cosine(case, full[0]) if full else None,
    }


def _worst_cosine(case: Case, reference: Case) -> float:
    assert case.features is not None
    assert reference.features is not None
    pair = case.features.double(), reference.features.double()
    return float(F.cosine_similarity(*pair, dim=1).min())
