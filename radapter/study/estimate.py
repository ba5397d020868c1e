"""How many runs a study has, and how long they will take, known before they start."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radapter import training
from radapter.evaluation.alphas import PAIRS
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import held_out_suite
from radapter.merging import tpgm
from radapter.models import load
from radapter.runtimes.opened import from_loaded
from radapter.study.planning import NOT_TRAINED, Job, Plan, missing
from radapter.study.results import Folder
from radapter.study.running import distinct
from radapter.study.schema import Merge
from radapter.study.suites import suite_for

STEPS, SECONDS = 3, 20.0
"""A timing ends after so many steps, or after the first step behind so much time"""
START = 10.0
"""Seconds that a process takes to start and to load its model"""
GATED = 3
"""Models that encode a picture where two are mixed, the mixture being one of them"""


@dataclass(frozen=True)
class Estimate:
    """What a study will take."""

    trials: int
    """Runs of the first stage; equal ones are one"""
    trials_missing: int
    finalists: int
    """Of the second, chosen trials among them"""
    finalists_missing: int
    """Those that lack training or a suite"""
    trainings_missing: int
    """In both stages together; a chosen trial is trained once. At most so many, while nothing is
    chosen."""
    seconds: float
    """For all that is missing, with the processes that were asked for"""
    by: str
    """How that is known"""


@dataclass(frozen=True)
class Pace:
    """How fast runs are, and how much they score."""

    epoch: Mapping[str, float]
    """Seconds of training for an epoch, by method; under "" for those not in it"""
    step: Mapping[str, float]
    """Seconds of an optimizer step, likewise"""
    picture: float
    """Seconds for a picture at one alpha"""
    held_out: int
    """Pictures at one alpha"""
    suites: int
    by: str

    def training(self, job: Job) -> float:
        if job.zero_shot:
            return START
        if job.merge:  # its run is a finalist of its method
            return START + self.merging(job.merge, job.needs[0].label)
        if job.soup:  # so is the first run of its own
            return START + sum(self.training(need) for need in job.needs[1:])
        epochs = job.recipe.optimisation.epochs
        return START + epochs * self.epoch.get(job.label, self.epoch[""])

    def merging(self, merge: Merge, of: str) -> float:
        if merge.rule == "tpgm":
            return self.step.get(of, self.step[""]) * int(merge.settings.get("steps", tpgm.STEPS))
        if merge.rule == "per-tower":
            return PAIRS * self.picture * self.held_out
        return 2 * self.picture * self.held_out  # by the zero-shot and by the tuned model

    def scoring(self, plan: Plan, job: Job, suites: bool) -> float:
        alphas = plan.held_out_alphas(job)
        at = plan.suite_alphas(job, 0.55)  # auto may be one more
        pictures = self.suites * len(at) if suites else self.held_out * len(alphas)
        models = GATED if job.merge and job.merge.rule in ("dawin", "vrf") else 1
        return self.picture * pictures * models


def estimate(plan: Plan, folder: Folder, jobs: int) -> Estimate:
    """Count what is missing, and say how long it will take.

    Raises:
        RadapterError: a model or data is missing or broken.
    """
    plan.choose(folder)
    labels = list(plan.study.methods)
    trials = distinct([job for label in labels for of in plan.trials(label) for job in of])
    last = distinct([job for label in labels for job in plan.finalists(label)])
    of_trials = {job: missing(plan, job, folder.read_run(job.name), False) for job in trials}
    of_last = {job: missing(plan, job, folder.read_run(job.name), True) for job in last}
    first = [job for job, parts in of_trials.items() if parts]
    keys = {job.key for job in first}
    more = [job for job, parts in of_last.items() if "held-out" in parts and job.key not in keys]
    pace = _of_finished(plan, folder, distinct(trials + last)) or _by_timing(plan, last, jobs)
    seconds = sum(pace.training(job) + pace.scoring(plan, job, False) for job in first + more)
    scored = [job for job, parts in of_last.items() if parts]
    seconds += sum(START + pace.scoring(plan, job, True) for job in scored)
    wanted = [job for job in first + more if not job.zero_shot]
    members = {need.key for job in wanted if job.soup for need in job.needs[1:]}
    trained = {job.key for job in wanted if job.is_trained} | members
    return Estimate(
        len(trials), len(first), len(last), len(scored), len(trained), seconds / jobs, pace.by
    )


def _of_finished(plan: Plan, folder: Folder, jobs: list[Job]) -> Pace | None:
    """From runs of this study that are there."""
    times: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {"": [0.0]}
    pictures: list[float] = []
    count: dict[str, int] = {}
    for job in jobs:
        result = folder.read_run(job.name)
        if result is None or job.zero_shot or result["cost"]["seconds"] is None:
            continue
        if job.is_trained:
            epochs, seconds = job.recipe.optimisation.epochs, result["cost"]["seconds"]
            for label in (job.label, ""):
                times.setdefault(label, []).append(seconds / epochs)
                if result["cost"]["steps"]:  # a head may be made and not trained
                    steps.setdefault(label, []).append(seconds / result["cost"]["steps"])
        scored = len(result["held_out"]["points"]) * result["held_out"]["items"]
        count["held-out"] = result["held_out"]["items"]
        for own in result["suites"].values():
            of_suite = sum(facts["pictures"] for facts in own["datasets"].values())
            count["suites"] = max(of_suite, count.get("suites", 0))
            scored += of_suite * len(own["alphas"])
        if (seconds := result["cost"]["scoring_seconds"]) is not None:  # it was trained, no more
            pictures.append(seconds / scored)
    if not times or not pictures:
        return None
    suites = count.get("suites") or _pictures_of_suites(plan, jobs[-1])
    means, of_steps = (
        {label: sum(own) / len(own) for label, own in of.items()} for of in (times, steps)
    )
    by = f"the {len(pictures)} finished runs of this study"
    per_picture = sum(pictures) / len(pictures)
    return Pace(means, of_steps, per_picture, count["held-out"], suites, by)


def _by_timing(plan: Plan, last: list[Job], jobs: int) -> Pace:
    """From a few steps of each kind of training, and one look at held-out data, with the cores that
    each of `jobs` processes has."""
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    of_methods = {job.label: job for job in reversed(last) if job.is_trained}
    if not of_methods:
        of_methods = {last[0].label: last[0]}
    timed: dict[str, tuple[float, float]] = {}
    for job in of_methods.values():
        if not job.zero_shot and _kind(job) not in timed:
            timed[_kind(job)] = _pace_of(job)
    paces = {label: timed.get(_kind(job), (0.0, 0.0)) for label, job in of_methods.items()}
    slowest = max(paces.values())
    epoch, step = (
        {"": slowest[n]} | {label: own[n] for label, own in paces.items()} for n in (0, 1)
    )
    job = next(iter(of_methods.values()))
    recipe = job.recipe
    suite = held_out_suite(recipe)
    opened = suite.open()
    base = load(recipe.model, seed=recipe.seed)
    model = from_loaded(base, device=recipe.device, precision=plan.precision)
    started = time.monotonic()
    evaluate(suite, model, opened=opened, keep_features=False)
    pictures = _pictures(opened)
    per_picture = (time.monotonic() - started) / pictures
    kinds = f"{len(timed)} kind{'s' * (len(timed) != 1)} of training"
    by = f"a timing of {kinds}, {STEPS} steps each, and held-out data scored once"
    return Pace(epoch, step, per_picture, pictures, _pictures_of_suites(plan, job), by)


def _kind(job: Job) -> str:
    """What says how long a step takes: all of its recipe but numbers that are tried."""
    tree = job.recipe.model_dump(mode="json")
    rates = {"lr", "weight_decay", "warmup_steps", "epochs"}
    tree["optimisation"] = {k: v for k, v in tree["optimisation"].items() if k not in rates}
    kept = {k: v for k, v in tree.items() if k not in {*NOT_TRAINED, "seed", "start", "validation"}}
    return json.dumps(kept, sort_keys=True)


def _pace_of(job: Job) -> tuple[float, float]:
    """Seconds of an epoch and of a step, from a few steps in a folder that is removed; 0 without
    any, of a head that is not trained."""
    seen: list[tuple[int, int, float]] = []

    def enough() -> bool:
        return len(seen) >= STEPS or (bool(seen) and time.monotonic() - begun > SECONDS)

    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(training.Interrupted):
        training.train(
            job.recipe, Path(folder), should_stop=enough,
            on_step=lambda m: seen.append((m["step"], m["steps"], m["seconds"])),
        )  # fmt: skip
    if not seen:
        return 0.0, 0.0
    (first, _, before), (step, steps, after) = seen[0], seen[-1]
    # The first step is slow; alone it is all there is.
    per_step = (after - before) / (step - first) if step > first else after / step
    return per_step * steps / job.recipe.optimisation.epochs, per_step


def _pictures_of_suites(plan: Plan, job: Job) -> int:
    suites = [suite_for(suite, job.recipe)[0] for suite in plan.suites.values()]
    return sum(_pictures(suite.open()) for suite in suites)


def _pictures(opened: Mapping[str, Mapping[Any, Any]]) -> int:
    """Of a suite that is open; what a set holds for two tasks is encoded once."""
    return sum(max(map(len, tasks.values())) for tasks in opened.values())
