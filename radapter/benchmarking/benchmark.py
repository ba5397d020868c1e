"""Measure a model: settings in, figures out."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radapter import bundle
from radapter.benchmarking.inputs import Batches
from radapter.benchmarking.measuring import Case, figures, measure
from radapter.benchmarking.subjects import EXPORTED, open_runtimes, open_subject
from radapter.errors import UsageError, nearest
from radapter.run import Run
from radapter.runtimes import Runtime
from radapter.runtimes.engines import ENGINES
from radapter.versions import versions

Encode = Callable[[Any, Batches, int], Callable[[], Tensor]]
"""A runtime, inputs and a batch size -> a call of it"""


def _pictures(runtime: Any, inputs: Batches, batch: int) -> Callable[[], Tensor]:
    values = inputs.pictures(batch)
    return lambda: runtime.encode_image(values)


def _texts(runtime: Any, inputs: Batches, batch: int) -> Callable[[], Tensor]:
    values = inputs.tokens(batch)
    return lambda: runtime.encode_text(values)


def _clips(runtime: Any, inputs: Batches, batch: int) -> Callable[[], Tensor]:
    values = inputs.clips(batch, runtime.frames)
    return lambda: runtime.encode_video(values)


def _queries(runtime: Any, inputs: Batches, batch: int) -> Callable[[], Tensor]:
    values = inputs.pictures(batch), inputs.queries(batch)
    return lambda: runtime.encode_query(*values)


TOWERS: dict[str, Encode] = {
    "pictures": _pictures, "texts": _texts, "clips": _clips, "queries": _queries
}  # fmt: skip


def towers_of(runtime: Any) -> dict[str, Encode]:
    """What a runtime encodes: clips only where its model was made for them, and queries of a
    picture and a text only where it makes such."""
    has = {"clips": runtime.frames is not None,
           "queries": getattr(runtime, "makes_queries", False)}  # fmt: skip
    return {name: encode for name, encode in TOWERS.items() if has.get(name, True)}


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long.

    Raises:
        UsageError: a name is unknown, a number out of range, or there is nothing to measure.
    """

    runtimes: Sequence[str] = tuple(ENGINES)
    precisions: Sequence[str] | None = None
    """Of exported engines. None: those of the bundle; of a model without one, fp32 and int8"""
    batches: Sequence[int] = (1, 32)
    threads: Sequence[int] | None = None
    """On the CPU. None: as many as torch uses"""
    rounds: int = 10
    seconds: float = 0.5
    """Of a turn: one case in one round. At least one call is made, however long it takes"""
    text_length: int | None = None
    """Tokens of a text. None: the model's context length"""

    def __post_init__(self) -> None:
        for what, values, known in (
            ("runtime", self.runtimes, list(ENGINES)),
            ("precision", self.precisions, list(bundle.PRECISIONS)),
        ):
            if values is not None and not values:
                raise UsageError(f"No {what} is named: name at least one to measure.")
            for value in values or ():
                if value not in known:
                    raise UsageError(f"Unknown {what} '{value}'.{nearest(value, known)}")
        for what, numbers in (("batch", self.batches), ("threads", self.threads)):
            if numbers is not None and (not numbers or min(numbers) < 1):
                raise UsageError(f"{what} must be numbers of 1 or more, not {list(numbers)}.")
        if self.rounds < 1 or not 0 <= self.seconds < math.inf:
            raise UsageError("Rounds must be 1 or more, and seconds a number of 0 or more.")

    @property
    def engines(self) -> bool:
        """Whether a bundle is needed."""
        return any(not ENGINES[name].reference for name in self.runtimes)


def bench(
    source: Run | Path | str,
    settings: Settings | None = None,
    *,
    on_progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> dict[str, Any]:
    """Measure latency and throughput of a model's towers.

    Args:
        source: a run (its merged model and bundle), a bundle, or what `models.load` takes, which
            is exported to a temporary folder.
        settings: what to measure.
        on_progress: called with turns done, turns in all, and what comes next.

    Returns:
        `cases`: each with `tower`, `runtime`, `precision`, `device`, `batch`, `threads`, `calls`,
        `median_ms` and `p95_ms` of a call, `per_second` (pictures, say), `speedup` over
        PyTorch eager of the same tower, device, batch and threads (the median over rounds, with
        `speedup_range`; None if that was not measured) in the precision `speedup_over`: fp16 for
        engines of less than fp32, where PyTorch was measured in it, else fp32; and the
        `worst_cosine` to its features in fp32.
        `left_out`: `runtime`, `precision` and `reason` of what could not be measured.
        Besides: `model`, `weights_hash`, `text_length`, `image_size`, `machine`, `versions`,
        `runtimes` (what really served) and the settings.

    Raises:
        UsageError: no such model, or the text length is not one of its.
        BrokenInput: the bundle is missing or damaged (the message names the command to type).
        GateFailed: the exported model does not do what the model does.
        RadapterError: nothing can be measured; the first reason.
    """
    settings = settings or Settings()
    load_before = _load()
    threads_before = torch.get_num_threads()
    threads = list(dict.fromkeys(settings.threads or [threads_before]))
    on_progress(0, 1, "loading, exporting")
    with open_subject(
        source,
        engines=settings.engines,
        precisions=settings.precisions,
        max_batch=max(settings.batches),
    ) as subject:
        manifest = bundle.read_manifest(subject.folder) if subject.folder else {}
        inputs = Batches(subject, manifest, settings.text_length)
        precisions = settings.precisions or manifest.get("precisions") or EXPORTED
        opened, left_out = open_runtimes(subject, settings.runtimes, precisions, threads)
        cases = [
            _case(name, runtime, n, tower, inputs, batch)
            for tower in TOWERS
            for batch in dict.fromkeys(settings.batches)
            for name, runtime, n in opened
            if tower in towers_of(runtime)
        ]
        try:
            measure(cases, settings.rounds, settings.seconds, on_progress)
        finally:
            torch.set_num_threads(threads_before)
        return {
            "model": subject.name,
            "weights_hash": opened[0][1].provenance["weights_hash"],
            "image_size": list(inputs.image_size),
            "text_length": inputs.text_length,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "machine": {**_machine(), "load_before": load_before, "load_after": _load()},
            "versions": versions(),
            "runtimes": [
                {"runtime": name, "precision": runtime.precision, "threads": n}
                | {key: value for key, value in runtime.provenance.items() if key != "threads"}
                for name, runtime, n in opened
            ],
            "cases": [figures(case, cases) for case in cases],
            "left_out": left_out,
        }


def _case(
    name: str, runtime: Runtime, threads: int | None, tower: str, inputs: Batches, batch: int
) -> Case:
    engine = ENGINES[name]
    return Case(
        tower, name, runtime.precision, engine.device, batch, threads,
        TOWERS[tower](runtime, inputs, batch), engine.reference,
    )  # fmt: skip


def _machine() -> dict[str, Any]:
    """What figures depend on; instruction sets decide most of int8's."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    return {
        "cpu": cpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _load() -> float | None:
    """How many processes wanted the processor in the last minute; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
