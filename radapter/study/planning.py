"""Which runs a study needs: the resolved recipe of each, the hash that names it, and the choice."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from radapter import recipe as recipes
from radapter.errors import UsageError, nearest
from radapter.evaluation import seeing
from radapter.evaluation.alphas import ALPHAS
from radapter.evaluation.suite import trained_metric
from radapter.precision import on_cpu
from radapter.recipe import Recipe
from radapter.registry import OF_QUERIES, TASKS
from radapter.registry import load as registered
from radapter.study.results import Folder
from radapter.study.schema import Merge, Study
from radapter.study.suites import suite_for, suite_of

NOT_TRAINED = ("name", "description", "suites", "export", "gpu", "trackers", "workers",
               "checkpoints", "alpha")  # fmt: skip
"""Keys of a recipe that change nothing of what is trained"""
SMOKE = ("optimisation.epochs=1", "optimisation.max_steps=3", "optimisation.warmup_steps=0")
OF_THE_BASE = ("model", "data", "validation")
"""Keys that say what the zero-shot model is, and what it is held out of"""


@dataclass(frozen=True)
class Job:
    """One run, and all that is to be known of it. Equal ones of two methods are one."""

    label: str
    """Of the method that wants it"""
    fold: int
    own: tuple[str, ...]
    """The changes that make the trial"""
    recipe: Recipe = field(compare=False)
    """Of a soup, its first run's"""
    zero_shot: bool
    key: str
    needs: tuple[Job, ...] = field(default=(), compare=False)
    """Runs that it starts from, or that a soup is of"""
    soup: str | None = None
    """The rule, of a soup"""
    merge: Merge | None = field(default=None, compare=False)
    """The rule, of a run that is merged by one"""

    @property
    def is_trained(self) -> bool:
        """Whether its own recipe is trained."""
        return not (self.zero_shot or self.soup or self.merge)

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def name(self) -> str:
        """Of its result."""
        method = f"{self.soup}-soup" if self.soup else self.recipe.method.name
        method = self.merge.rule if self.merge else method
        method = "zero-shot" if self.zero_shot else method
        return f"{method}-seed{self.seed}-{self.key[:12]}"

    @property
    def in_words(self) -> str:
        """For a line of progress: `full, optimisation.lr=0.001, fold 1, seed 0`."""
        return ", ".join([self.label, *self.own, f"fold {self.fold}", f"seed {self.seed}"])


def key_of(recipe: Recipe, zero_shot: bool) -> str:
    """The hash of what a run depends on. Settings at their defaults are not in it, so that a run
    keeps its name when a later version has more of them (`agrees` compares them all)."""
    tree = recipe.model_dump(mode="json", exclude_defaults=True)
    if zero_shot:
        kept = {key: tree[key] for key in OF_THE_BASE if key in tree} | {"zero-shot": True}
    else:
        alpha = {"alpha": recipe.alpha} if recipe.monitor.wanted else {}
        kept = {key: value for key, value in tree.items() if key not in NOT_TRAINED} | alpha
        kept["seed"] = recipe.seed
    if recipe.model.endswith(":random"):
        kept["seed"] = recipe.seed
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _joined(*keys: str) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def agrees(kept: Any, now: Any) -> bool:
    """Whether a stored recipe says the same as one of now, where both say something: defaults may
    have been added since, and none may have changed. Where training starts is in the key."""
    if isinstance(kept, Mapping) and isinstance(now, Mapping):
        keys = kept.keys() & now.keys() - {*NOT_TRAINED, "start"}
        return all(agrees(kept[key], now[key]) for key in keys)
    if isinstance(kept, list) and isinstance(now, list):  # such as the terms of an objective
        return len(kept) == len(now) and all(map(agrees, kept, now))
    return bool(kept == now)


# ---------------------------------------------------------------- the runs of a study


class Plan:
    """The runs of a study.

    Args:
        study: checked.
        place: of its file, for messages.
        smoke: only try that all works: one trial, one seed, three steps, few alphas and data sets.

    Raises:
        UsageError: a recipe or suite is missing, a change does not fit its recipe, or a method has
            no held-out data; the message names the method.
    """

    def __init__(self, study: Study, place: str, smoke: bool = False) -> None:
        self.study, self.place, self.smoke = study.smallest() if smoke else study, place, smoke
        on_gpu, wanted = torch.cuda.is_available(), study.precision
        self.precision = wanted if on_gpu else on_cpu(wanted, "scores are computed")
        """What scores are computed in"""
        suites = [suite_of(name, smoke) for name in study.suites]
        self.suites = {suite.name: suite for suite in suites}
        self.choices: dict[str, list[str]] = {}
        """The chosen changes of methods; as long as there are none, the first stand for them"""
        self._keys: dict[str, set[str]] = {}
        """Of each method's runs, one for each setting"""
        of_each: dict[str, str] = {}
        for label in study.methods:
            settings, first = study.methods[label].settings() or [[]], study.trials.seeds[0]
            self._keys[label] = {self.job(label, own, first).key for own in settings}
            example = self.finalists(label)[0].recipe
            self._check(label, example)
            of_each.setdefault(trained_metric(example), label)
        if len(of_each) > 1:
            said = ", ".join(f"{label} by {metric}" for metric, label in of_each.items())
            raise UsageError(
                f"{place}: methods are chosen by different measures ({said}). A study compares "
                "methods of one task: make a study for each, or give all the same held-out data, "
                "as `validation` in the study's `set`."
            )
        self.trained_metric = next(iter(of_each))
        """What held-out data is scored by"""
        self._check_names(example)

    def job(self, label: str, own: Sequence[str], seed: int, fold: int = 0) -> Job:
        """A run of a method with the changes of a trial."""
        method = self.study.methods[label]
        if method.soup is not None:
            of, rule = method.soup.of, method.soup.rule
            members = tuple(self.job(of, self.choice(of), s, fold) for s in method.soup.seeds(seed))
            key = _joined(rule, *(member.key for member in members))
            return Job(label, fold, (), members[0].recipe, False, key, members, rule)
        if method.merge is not None:
            of = method.merge.of
            made_of = self.job(of, self.choice(of), seed, fold)
            key = _joined(method.merge.model_dump_json(exclude={"of"}), made_of.key)
            return Job(label, fold, (), made_of.recipe, False, key, (made_of,), merge=method.merge)
        path = recipes.locate(method.recipe or self.study.recipe or "")
        try:
            overrides = self.study.overrides(label, own, seed, fold)
            recipe = recipes.load(path, [*overrides, *(SMOKE if self.smoke else ())])
        except UsageError as error:
            raise UsageError(f"{self.place}: methods.{label}: {error}") from None
        key = key_of(recipe, method.zero_shot)
        if method.start is None:
            return Job(label, fold, tuple(own), recipe, method.zero_shot, key)
        start = self.job(method.start, self.choice(method.start), seed, fold)
        return Job(label, fold, tuple(own), recipe, False, _joined(key, start.key), (start,))

    def choice(self, label: str) -> list[str]:
        """The chosen changes of a method, or the first ones while nothing is chosen."""
        return self.choices.get(label) or [*self.study.methods[label].settings(), []][0]

    def trials(self, label: str) -> list[list[Job]]:
        """For each setting of a method its runs, one for each seed; none where there is one setting
        alone, of which nothing has to be chosen."""
        settings = self.study.methods[label].settings()
        if len(settings) < 2:
            return []
        return [[self.job(label, own, s) for s in self.study.trials.seeds] for own in settings]

    def finalists(self, label: str) -> list[Job]:
        """The runs of a method with its chosen setting. The zero-shot model has one for a fold."""
        zero_shot, first = self.study.methods[label].zero_shot, self.study.finalists.seeds[0]
        return [
            self.job(label, self.choice(label), first if zero_shot else seed, fold)
            for fold, seed in self.study.places()
        ]

    def choose(self, folder: Folder, failed: Sequence[str] = ()) -> None:
        """Fill in `choices` from the trials that are there, each method behind what it rests on."""
        for label in itertools.chain(*self.study.levels()):
            if (place := chosen(self, label, folder, failed)) is not None:
                self.choices[label] = self.study.methods[label].settings()[place]

    def is_settled(self, label: str) -> bool:
        """Whether the setting of a method is known, and that of what it rests on."""
        own = label in self.choices or not self.study.methods[label].has_trials
        return own and self.has_start(label)

    def has_start(self, label: str) -> bool:
        """Whether the setting of what a method rests on is known, if it rests on one."""
        on = self.study.methods[label].rests_on
        return on is None or self.is_settled(on)

    def alphas_of(self, label: str) -> tuple[bool, list[float]]:
        """Whether a method that has runs of this one takes `auto`, and the alphas that such methods
        state."""
        same = [
            own.alpha
            for other, own in self.study.methods.items()
            if not own.zero_shot and self._keys[other] & self._keys[label]
        ]
        return "auto" in same, [float(alpha) for alpha in same if alpha != "auto"]

    def held_out_alphas(self, job: Job) -> list[float]:
        """Where held-out data is scored: as its methods say, the steps of `auto` or an alpha. What
        is merged by a rule is one model, beside the zero-shot one."""
        if job.zero_shot or job.merge:
            return [0.0] if job.zero_shot else [0.0, 1.0]
        auto, stated = self.alphas_of(job.label)
        steps = ALPHAS[::5] if self.smoke else ALPHAS
        return sorted({*(steps if auto else ()), *stated})

    def metrics(self) -> list[str]:
        """Those that held-out data is scored by."""
        return list(
            dict.fromkeys([self.trained_metric, *self.study.choose.metrics(self.trained_metric)])
        )

    def suite_alphas(self, job: Job, auto: float | None) -> list[float]:
        """Where a finalist is scored whose `auto` this is; None: it is not known, or none's."""
        if job.zero_shot or job.merge:
            return [0.0] if job.zero_shot else [1.0]
        asked, stated = self.alphas_of(job.label)
        own = [auto] if asked and auto is not None else []
        return sorted({*self.study.alphas, *stated, *own})

    def _check_names(self, recipe: Recipe) -> None:
        """That `compare` names places of the suites, and that these have what is compared."""
        tasks = {task for suite in self.suites.values() for task in suite.tasks}
        given = [name for task in sorted(tasks) for name in registered(TASKS, task).METRICS]
        for name in self.study.metrics or [self.trained_metric]:
            if name not in given:
                raise UsageError(
                    f"{self.place}: metrics: the suites have no {name}: name some of "
                    f"{', '.join(given)}."
                )
        fitted = [suite.for_recipe(recipe) for suite in self.suites.values()]
        names = [dataset.name for suite in fitted for dataset in suite.datasets]
        names += [name for suite in fitted for name in (*suite.roles(), *suite.averages)]
        for name in self.study.compare:
            if name not in names:
                raise UsageError(
                    f"{self.place}: compare: nothing of the suites is called '{name}'."
                    f"{nearest(name, list(dict.fromkeys(names)))}"
                )

    def _check(self, label: str, recipe: Recipe) -> None:
        """That a method's held-out data is there, and of the training distribution."""
        where = f"{self.place}: methods.{label}"
        held_out = recipe.validation_data()
        if held_out is None:
            raise UsageError(
                f"{where}: the recipe has no held-out data, and settings and alpha are chosen on "
                "it: set data.hold_out (such as 0.1) or `validation`."
            )
        method = self.study.methods[label]
        if recipe.method.name in OF_QUERIES and method.alpha == "auto":
            raise UsageError(
                f"{where}: {recipe.method.name} changes no feature of pictures and texts, by which "
                "`alpha: auto` chooses: write alpha: 1."
            )
        if recipe.start is not None and method.start is None and method.rests_on is None:
            raise UsageError(
                f"{where}: the recipe starts from the run {recipe.start}, of which the study knows "
                "nothing: name the method of the study that it is of, in `start`."
            )
        try:
            seeing.open_checked(recipe, self.suites.values())
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        for suite in self.suites.values():
            for dataset in suite.for_recipe(recipe).datasets:
                # A control shows again what another data set has.
                if dataset.role == "control" or not dataset.data.overlaps(held_out):
                    continue
                if dataset.role != "in-distribution":
                    raise UsageError(
                        f"{where}: the held-out data of the recipe is {dataset.name} of "
                        f"{suite.name}, which is {dataset.role}. Settings are chosen on held-out "
                        "data of the training distribution alone: correct `validation`."
                    )
                splits = [getattr(data, "split", None) for data in (dataset.data, held_out)]
                if splits[0] == splits[1]:
                    raise UsageError(
                        f"{where}: the held-out data of the recipe is {dataset.name} of "
                        f"{suite.name}, the test data. Settings are chosen on other pictures: "
                        "correct `validation`."
                    )


# ---------------------------------------------------------------- what is there, and the choice


def is_of(result: Mapping[str, Any], job: Job) -> bool:
    """Whether a stored result is of this very run."""
    if result["key"] != job.key:
        return False
    now = job.recipe.model_dump(mode="json")
    kept = result["recipe"]
    if job.zero_shot:
        now, kept = ({key: tree.get(key) for key in OF_THE_BASE} for tree in (now, kept))
    return agrees(kept, now)


def missing(plan: Plan, job: Job, result: Mapping[str, Any] | None, final: bool) -> list[str]:
    """What a run still has to do: `held-out`, and the names of suites."""
    if result is None or not is_of(result, job):
        return ["held-out", *(plan.suites if final else ())]
    same = result["held_out"].get("precision", "fp32") == plan.precision
    points = {point["alpha"]: point for point in result["held_out"]["points"]}
    needed = {plan.trained_metric} if job.zero_shot else set(plan.metrics())
    lacking = [
        "held-out"
        for alpha in plan.held_out_alphas(job)
        if not (same and alpha in points and needed <= points[alpha].keys())
    ][:1]
    for name, suite in plan.suites.items() if final else ():
        own = result["suites"].get(name)
        _, definition = suite_for(suite, job.recipe, plan.precision)
        at = plan.suite_alphas(job, result["held_out"]["auto"])
        if own is None or own["definition"] != definition or not set(at) <= set(own["alphas"]):
            lacking.append(name)
    return lacking


def alpha_of(rule: str | float, result: Mapping[str, Any]) -> float:
    """The alpha of a run by the rule of its method."""
    return float(result["held_out"]["auto"] if rule == "auto" else rule)


def score_of(result: Mapping[str, Any], rule: str | float, metrics: Sequence[str]) -> float:
    """What a trial is judged by: the mean of the measures on held-out data at its alpha."""
    alpha = alpha_of(rule, result)
    point = next(p for p in result["held_out"]["points"] if p["alpha"] == alpha)
    return sum(point[metric] for metric in metrics) / len(metrics)


def chosen(plan: Plan, label: str, folder: Folder, failed: Sequence[str] = ()) -> int | None:
    """The place of the best trial of a method, of equal ones the first; None while one is missing.

    Args:
        failed: names of runs that have no result: a trial with one of them is not chosen.
    """
    if len(plan.study.methods[label].settings()) == 1:
        return 0
    rule = plan.study.methods[label].alpha
    metrics = plan.study.choose.metrics(plan.trained_metric)
    scores: dict[int, float] = {}
    for place, jobs in enumerate(plan.trials(label)):
        results = [folder.read_run(job.name) for job in jobs]
        there = [
            result
            for job, result in zip(jobs, results, strict=True)
            if result is not None and not missing(plan, job, result, final=False)
        ]
        if len(there) == len(jobs):
            scores[place] = sum(score_of(r, rule, metrics) for r in there) / len(there)
        elif not any(job.name in failed for job in jobs):
            return None
    return max(scores, key=lambda place: scores[place], default=None)


def path_of(results: Path | None, study: Study) -> Path:
    """The folder of the results of a study: given, or `results/NAME`."""
    return results or Path("results") / study.name
