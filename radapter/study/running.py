"""The runs of a study, several at a time, each a process of its own; what fails is named."""

from __future__ import annotations

import functools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radapter import recipe as recipes
from radapter.errors import RadapterError
from radapter.models import load
from radapter.processors import at_hand
from radapter.study.one import INTERRUPTED, Order, Training
from radapter.study.planning import (
    Job,
    Plan,
    alpha_of,
    is_of,
    missing,
    score_of,
)
from radapter.study.results import Folder

RUNS = Path("runs") / "studies"
"""Trainings of all studies, by the hash of their recipes"""


@dataclass(frozen=True)
class Failure:
    """A run that has no result."""

    job: Job
    message: str
    code: int


@dataclass
class Progress:
    """What `run_study` tells while it goes on."""

    on_stage: Callable[[str, int, int], None] = lambda stage, there, total: None
    """With the name of the stage, how many of its runs are there already, and all"""
    on_done: Callable[[Job, dict[str, Any] | None, float], None] = lambda job, result, seconds: None
    """After each run, with its result, or None if it failed"""


@dataclass
class Workers:
    """Processes at work; each has a share of the cores, and where there are GPUs one of them."""

    jobs: int
    devices: list[str] = field(default_factory=list)
    """Names of GPUs, as CUDA_VISIBLE_DEVICES has them"""
    running: set[subprocess.Popen[str]] = field(default_factory=set)
    stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.places: queue.Queue[int] = queue.Queue()
        for place in range(self.jobs):
            self.places.put(place)

    def environment(self, place: int) -> dict[str, str]:
        """Of the process at a place: its share of the cores, for torch and for what reads."""
        threads = int(os.environ.get("OMP_NUM_THREADS") or at_hand())
        found = os.environ | {
            "OMP_NUM_THREADS": str(max(1, threads // self.jobs)),
            "LOCAL_WORLD_SIZE": str(self.jobs),
        }
        if self.devices:
            found["CUDA_VISIBLE_DEVICES"] = self.devices[place % len(self.devices)]
        return found

    def call(self, order: Order) -> tuple[int, str]:
        """Carry out one order in a process: its exit code, and why it failed."""
        place = self.places.get()
        try:
            with self.lock:
                if self.stopped:
                    return INTERRUPTED, ""
                process = subprocess.Popen(
                    [sys.executable, "-m", "radapter.study.one"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    text=True, env=self.environment(place),
                )  # fmt: skip
                self.running.add(process)
            said = process.communicate(order.text())[1]
            return process.returncode, said
        finally:
            self.places.put(place)

    def stop(self) -> None:
        """Ask all to save their state and end."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                if process.poll() is None:
                    process.terminate()


def gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = given.split(",") if given else None
    count = torch.cuda.device_count()
    return named[:count] if named else [str(number) for number in range(count)]


# ---------------------------------------------------------------- a study


def run_study(
    plan: Plan,
    folder: Folder,
    *,
    runs: Path = RUNS,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[Failure]:
    """Both stages: trials, the choice, finalists. What is there already is not run again.

    Args:
        runs: the folder of trainings.
        jobs: processes at a time; None: one for each GPU, else one.

    Returns:
        The runs that failed. A trial that failed is not chosen; a method of which a finalist
        failed is not in the table.
    """
    progress = progress or Progress()
    devices = gpus()
    workers = Workers(jobs or len(devices) or 1, devices)
    failed: list[Failure] = []
    for level in plan.study.levels():  # a method that rests on another needs its choice
        labels = [label for label in level if plan.has_start(label)]
        trials = distinct([job for label in labels for of in plan.trials(label) for job in of])
        failed += stage(plan, folder, runs, workers, trials, "trials", progress)
        plan.choose(folder, [failure.job.name for failure in failed])
        folder.write_study(outline(plan))
    settled = [label for label in plan.study.methods if plan.is_settled(label)]
    last = distinct([job for label in settled for job in plan.finalists(label)])
    failed += stage(plan, folder, runs, workers, last, "finalists", progress)
    folder.write_study(outline(plan))
    return failed


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """Of equal runs the first."""
    return list({job.key: job for job in reversed(jobs)}.values())[::-1]


def stage(
    plan: Plan, folder: Folder, runs: Path, workers: Workers, jobs: list[Job], name: str,
    progress: Progress,
) -> list[Failure]:  # fmt: skip
    """Run what is missing of some runs."""
    final = name == "finalists"
    if not jobs:
        return []
    waiting = [(job, order(plan, folder, runs, job, final)) for job in jobs]
    todo = [(job, given) for job, given in waiting if given.parts]
    progress.on_stage(name, len(jobs) - len(todo), len(jobs))
    failed: list[Failure] = []

    def call(one: tuple[Job, Order]) -> None:
        job, given = one
        started = time.monotonic()
        code, said = workers.call(given)
        if workers.stopped:
            return
        result = folder.read_run(job.name) if code == 0 else None
        if result is None:
            failed.append(Failure(job, reason(code, said), max(code, 1)))
        progress.on_done(job, result, time.monotonic() - started)

    with ThreadPoolExecutor(workers.jobs) as pool:
        try:
            for future in [pool.submit(call, one) for one in todo]:
                future.result()
        except BaseException:
            workers.stop()
            raise
    if workers.stopped:
        raise KeyboardInterrupt
    return failed


def order(plan: Plan, folder: Folder, runs: Path, job: Job, final: bool) -> Order:
    """What the process of a run is to do: `parts` is empty if nothing is."""
    base_hash = hash_of(job.recipe.model, job.recipe.seed)
    result = folder.read_run(job.name)
    if result is not None and (result["base_hash"] != base_hash or not is_of(result, job)):
        result = None  # of other weights, or of a recipe whose defaults have changed
        folder.run(job.name).unlink()
    return Order(
        name=job.name,
        training=training_of(job),
        zero_shot=job.zero_shot,
        base_hash=base_hash,
        parts=missing(plan, job, result, final),
        suites=plan.study.suites,
        smoke=plan.smoke,
        precision=plan.precision,
        auto=plan.alphas_of(job.label)[0],
        held_out_alphas=plan.held_out_alphas(job),
        suite_alphas=plan.suite_alphas(job, None),
        metrics=plan.metrics(),
        results=str(folder.path.absolute()),
        runs=str(runs.absolute()),
    )


def outline(plan: Plan) -> dict[str, Any]:
    """`study.json`, see `radapter.study.results`, with what `plan.choose` found."""
    methods: dict[str, Any] = {}
    for label, method in plan.study.methods.items():
        own, settings = plan.choices.get(label), method.settings()
        trials = [
            {"set": list(job.own), "fold": job.fold, "seed": job.seed, "run": job.name}
            for jobs in plan.trials(label)
            for job in jobs
        ]
        jobs = plan.finalists(label) if plan.is_settled(label) else []
        methods[label] = {
            "alpha": method.alpha,
            "shows": method.shows,
            "trials": trials,
            "settings": settings,
            "chosen": None if own is None else settings.index(own),
            "finalists": [
                {"fold": fold, "seed": seed, "run": job.name}
                for (fold, seed), job in zip(plan.study.places(), jobs, strict=bool(jobs))
            ],
        }
    return {
        "study": plan.study.model_dump(mode="json"),
        "trained_metric": plan.trained_metric,
        "suites": list(plan.suites),
        "methods": methods,
    }


def training_of(job: Job) -> Training:
    """How the run comes about."""
    needs = [training_of(need) for need in job.needs]
    merge = job.merge.model_dump(mode="json") if job.merge else None
    return Training(job.key, recipes.dump(job.recipe), needs, job.soup, merge)


def hash_of(model: str, seed: int) -> str:
    """The hash of the weights that a recipe starts from."""
    return _hash_of(model, seed if model.endswith(":random") else 0)


@functools.cache
def _hash_of(model: str, seed: int) -> str:
    return load(model, seed=seed).weights_hash


def reason(code: int, said: str) -> str:
    """Why a process failed, from its exit code and what it left on stderr."""
    if code < 0:
        return f"its process was ended by signal {-code}, as one that takes too much memory is."
    if code == INTERRUPTED:
        return "something else than the study asked its process to stop; its state is saved."
    lines = [line for line in said.splitlines() if line.strip()] or ["it left no result."]
    try:
        return str(json.loads(lines[-1])["message"])
    except (ValueError, KeyError, TypeError):
        return lines[-1]


def standing(plan: Plan, rule: str | float, result: Mapping[str, Any]) -> tuple[float, float]:
    """The alpha of a run by a method's rule, and what it scores there on held-out data; the
    zero-shot model, of which nothing is chosen, may lack what others are chosen by."""
    metrics = plan.study.choose.metrics(plan.trained_metric)
    if not set(metrics) <= result["held_out"]["points"][0].keys():
        metrics = [plan.trained_metric]
    return alpha_of(rule, result), score_of(result, rule, metrics)


class RunsFailed(RadapterError):
    """Some runs of a study failed; the others are there."""

    def __init__(self, failed: Sequence[Failure]) -> None:
        lines = "".join(f"\n  {failure.job.in_words}: {failure.message}" for failure in failed)
        super().__init__(
            f"{len(failed)} of the study's runs failed. Type the command again to try them again; "
            f"what is there is not repeated.{lines}",
            details={
                "failed": [{"run": f.job.in_words, "message": f.message} for f in failed],
            },
        )
        self.exit_code = failed[0].code
