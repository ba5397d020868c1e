"""How fast each runtime encodes, in one process, as times and as ratios to PyTorch.

Everything that is compared is open at once and takes turns, in rounds, so that a busy moment of
the machine falls on all alike; ratios are of the same round. A call takes tensors on the CPU and
gives features on the CPU: copies to a device and back are in its time.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radapter import bundle, models
from radapter.errors import BrokenInput, MissingDependency, RadapterError, UsageError, nearest
from radapter.evaluation.versions import versions
from radapter.export import export_bundle
from radapter.export.verification import LONG, TEXTS, blurred, image_size, white_noise
from radapter.inference.opening import BundleTokenizer
from radapter.merging import read_merged
from radapter.models import LoadedModel
from radapter.run import Run
from radapter.runtimes import Runtime
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.pytorch import PyTorchRuntime

WARM_UP = 3  # calls: the first allocates, and some runtimes record a shape that comes again
# Idle OpenMP threads of torch spin for up to 10 ms after a call (measured) and would take the
# processor from whoever comes next.
PAUSE = 0.02
PICTURES, TEXT = "pictures", "texts"


@dataclass
class Subject:
    """A model to measure: its weights in PyTorch, its bundle, or both."""

    name: str
    loaded: LoadedModel | None
    folder: Path | None
    reason: str = ""
    """Why there is no bundle"""

    def weights(self) -> LoadedModel:
        if self.loaded is None:
            raise MissingDependency("A bundle has no PyTorch weights: give its run, or a name.")
        return self.loaded

    def bundle(self) -> Path:
        if self.folder is None:
            raise MissingDependency(self.reason)
        return self.folder


@dataclass(frozen=True)
class Kind:
    """A runtime that can be measured."""

    open: Callable[[Subject, str, int], Runtime]
    """Of a subject, in a precision, with a number of threads (without meaning on a GPU)"""
    precisions: Sequence[str] = bundle.PRECISIONS
    device: str = "cpu"
    reference: bool = False
    """PyTorch eager: what the others on its device are compared with, always in fp32"""


RUNTIMES: dict[str, Kind] = {
    "torch": Kind(lambda s, *_: PyTorchRuntime(s.weights()), ["fp32"], reference=True),
    "torch-cuda": Kind(
        lambda s, *_: PyTorchRuntime(s.weights(), "cuda"), ["fp32"], "cuda", reference=True
    ),
    "onnx": Kind(lambda s, precision, n: OnnxRuntime(s.bundle(), precision=precision, threads=n)),
    # The operators of dynamic int8 are the CPU's.
    "onnx-cuda": Kind(
        lambda s, precision, _: OnnxRuntime(
            s.bundle(), "CUDAExecutionProvider", precision=precision
        ),
        ["fp32", "fp16"],
        "cuda",
    ),
}


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long.

    Raises:
        UsageError: a name is unknown, a number out of range, or there is nothing to measure.
    """

    runtimes: Sequence[str] = tuple(RUNTIMES)
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
            ("runtime", self.runtimes, list(RUNTIMES)),
            ("precision", self.precisions, list(bundle.PRECISIONS)),
        ):
            if values is not None and not values:
                raise UsageError(f"There is no {what} to measure: name one.")
            for value in values or ():
                if value not in known:
                    raise UsageError(f"Unknown {what} '{value}'.{nearest(value, known)}")
        for what, numbers in (("batch", self.batches), ("threads", self.threads)):
            if numbers is not None and (not numbers or min(numbers) < 1):
                raise UsageError(f"{what} must be numbers of 1 or more, not {list(numbers)}.")
        if self.rounds < 1 or not 0 <= self.seconds < math.inf:
            raise UsageError("rounds must be 1 or more, and seconds no less than 0.")

    @property
    def engines(self) -> bool:
        """Whether a bundle is needed."""
        return any(not RUNTIMES[name].reference for name in self.runtimes)


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
        `median_ms` and `p95_ms` of a call, `per_second` (pictures or texts), `speedup` over
        PyTorch eager of the same tower, device, batch and threads (the median over rounds, with
        `speedup_range`; None if that was not measured), and the `worst_cosine` to its features.
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
    before = _load()
    threads_before = torch.get_num_threads()
    threads = list(dict.fromkeys(settings.threads or [threads_before]))
    on_progress(0, 1, "loading, exporting")
    with _open(source, settings) as subject:
        manifest = bundle.read_manifest(subject.folder) if subject.folder else {}
        precisions = settings.precisions or manifest.get("precisions") or ("fp32", "int8")
        opened, left_out = _open_runtimes(subject, settings.runtimes, precisions, threads)
        inputs = _Inputs(subject, manifest, settings.text_length)
        cases = [
            _case(name, runtime, n, tower, inputs, batch)
            for tower in (PICTURES, TEXT)
            for batch in dict.fromkeys(settings.batches)
            for name, runtime, n in opened
        ]
        try:
            _measure(cases, settings, on_progress)
        finally:
            torch.set_num_threads(threads_before)
        return {
            "model": subject.name,
            "weights_hash": opened[0][1].provenance["weights_hash"],
            "image_size": list(inputs.image_size),
            "text_length": inputs.text_length,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "machine": {**_machine(), "load_before": before, "load_after": _load()},
            "versions": versions(),
            "runtimes": [
                {"runtime": name, "precision": runtime.precision, "threads": n}
                | {key: value for key, value in runtime.provenance.items() if key != "threads"}
                for name, runtime, n in opened
            ],
            "cases": [_result(case, cases) for case in cases],
            "left_out": left_out,
        }


# ---------------------------------------------------------------- what is measured


@contextlib.contextmanager
def _open(source: Run | Path | str, settings: Settings) -> Iterator[Subject]:
    """The model, with its bundle if engines are measured; what is exported is gone at the end."""
    if isinstance(source, Run):
        loaded, facts = read_merged(source)
        folder = source.bundle_for(facts["weights_hash"])
        if settings.engines and not folder.is_dir():
            raise BrokenInput(
                f"Run {source.name} has no bundle exported from its present merged model. "
                f"Type first: radapter export --run {source.path}"
            )
        if settings.engines:
            bundle.verify(folder, weights_hash=facts["weights_hash"])
        name = f"{source.name}, alpha {facts['alpha']:g}"
        yield Subject(name, loaded, folder if settings.engines else None)
        return
    folder = Path(source)
    if (folder / bundle.MANIFEST).is_file():
        manifest = bundle.verify(folder)
        name = f"{manifest.get('recipe', folder)}, alpha {manifest.get('alpha', '?')}"
        yield Subject(name, None, folder)
        return
    if (folder / "recipe.yaml").is_file():
        raise UsageError(f"{folder} is a run: give it as --run {folder}")
    loaded = models.load(source)
    subject = Subject(str(source), loaded, None)
    with tempfile.TemporaryDirectory(prefix="radapter-bench-") as temporary:
        if settings.engines:
            facts = {"base_model": str(source), "base_hash": loaded.weights_hash}
            facts |= {"recipe": "none", "recipe_hash": "", "method": "none", "alpha": 0.0}
            try:
                export_bundle(
                    loaded,
                    Path(temporary) / "bundle",
                    facts=facts,
                    precisions=settings.precisions or ("fp32", "int8"),
                    max_batch=max(settings.batches),
                )
                subject.folder = Path(temporary) / "bundle"
            except MissingDependency as error:
                subject.reason = str(error)
        yield subject


Opened = list[tuple[str, Runtime, int | None]]
"""(name, runtime, threads)"""


def _open_runtimes(
    subject: Subject, names: Sequence[str], precisions: Sequence[str], threads: Sequence[int]
) -> tuple[Opened, list[dict[str, str]]]:
    """Every runtime in every precision with every number of threads, and what does not open."""
    opened: Opened = []
    left_out = []
    first: RadapterError | None = None
    for name in dict.fromkeys(names):
        kind = RUNTIMES[name]
        for precision in ["fp32"] if kind.reference else dict.fromkeys(precisions):
            try:
                if precision not in kind.precisions:
                    known = " and ".join(kind.precisions)
                    raise UsageError(f"The runtime {name} has {known} only, no {precision}.")
                for n in threads if kind.device == "cpu" else threads[:1]:
                    runtime = kind.open(subject, precision, n)
                    opened.append((name, runtime, n if kind.device == "cpu" else None))
            except RadapterError as error:
                first = first or error
                left_out.append({"runtime": name, "precision": precision, "reason": str(error)})
    if not opened:
        assert first
        raise first
    return opened, left_out


class _Inputs:
    """The same inputs for all."""

    def __init__(self, subject: Subject, manifest: dict[str, Any], text_length: int | None) -> None:
        self._tokenize: Callable[[list[str]], Tensor]
        if subject.loaded is not None:
            model: Any = subject.loaded.model
            self.image_size = image_size(subject.loaded)
            context, dynamic = int(model.context_length), models.text.takes_short_texts(model)
            self._tokenize = subject.loaded.tokenizer
        else:
            height, width = manifest["image_size"]
            self.image_size = (height, width)
            context = int(manifest["context_length"])
            dynamic = manifest["text_length"] == "dynamic"
            self._tokenize = BundleTokenizer(subject.bundle(), manifest)
        self.text_length = context if text_length is None else text_length
        if not 2 <= self.text_length <= context or (self.text_length < context and not dynamic):
            allowed = f"2 to {context}" if dynamic else f"{context} only"
            raise UsageError(
                f"{subject.name} takes texts of {allowed} tokens, not {self.text_length}."
            )

    def pictures(self, count: int) -> Tensor:
        """pixel_values [count, 3, height, width]."""
        return blurred(white_noise(count, self.image_size))

    def tokens(self, count: int) -> Tensor:
        """Token ids [count, text length]: texts cut to it, each with its end token."""
        ids = self._tokenize([f"{TEXTS[i % len(TEXTS)]} {i}, {LONG}" for i in range(count)])
        return torch.cat([ids[:, : self.text_length - 1], ids[:, -1:]], dim=1)


def _case(
    name: str, runtime: Runtime, threads: int | None, tower: str, inputs: _Inputs, batch: int
) -> Case:
    encode = runtime.encode_image if tower == PICTURES else runtime.encode_text
    values = inputs.pictures(batch) if tower == PICTURES else inputs.tokens(batch)
    kind = RUNTIMES[name]
    return Case(
        tower, name, runtime.precision, kind.device, batch, threads,
        lambda: encode(values), kind.reference,
    )  # fmt: skip


# ---------------------------------------------------------------- measuring


def _measure(
    cases: list[Case], settings: Settings, on_progress: Callable[[int, int, str], None]
) -> None:
    done, total = 0, len(cases) * (settings.rounds + 1)
    for number in range(settings.rounds + 1):
        # To and fro, so that nobody always comes after the same one.
        for case in cases if number % 2 == 0 else reversed(cases):
            what = f"{case.tower} {case.batch}, {case.runtime} {case.precision}"
            on_progress(done, total, what)
            if case.threads is not None:
                torch.set_num_threads(case.threads)
            time.sleep(PAUSE)
            if number == 0:
                _warm_up(case)
            else:
                case.rounds.append(_turn(case, settings.seconds))
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


# ---------------------------------------------------------------- figures


def _result(case: Case, cases: Sequence[Case]) -> dict[str, Any]:
    calls = [seconds for turn in case.rounds for seconds in turn]
    same = [c for c in cases if c.reference and (c.tower, c.batch) == (case.tower, case.batch)]
    equal = [c for c in same if (c.device, c.threads) == (case.device, case.threads)]
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
        "worst_cosine": _worst_cosine(case, same[0]) if same else None,
    }


def _worst_cosine(case: Case, reference: Case) -> float:
    assert case.features is not None
    assert reference.features is not None
    pair = case.features.double(), reference.features.double()
    return float(F.cosine_similarity(*pair, dim=1).min())


def _machine() -> dict[str, Any]:
    """What figures depend on; instruction sets decide most of int8's."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpu": gpu,
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _load() -> float | None:
    """How many processes wanted the processor in the last minute; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
