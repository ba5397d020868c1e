"""One run of a study, in a process of its own: train, score held-out data, score the suites.

    python -m radapter.study.one < JOB.json

Training is kept in a folder that its recipe and base weights name, whichever study asks for it: a
finished one is used again, one that was interrupted goes on. The result is written after each part.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from radapter import merging, training
from radapter import recipe as recipes
from radapter.errors import RadapterError, UsageError
from radapter.evaluation.alphas import (
    ALPHAS,
    alpha_curve,
    behind_the_best,
    choose_per_tower,
    merge_per_tower,
    smallest_within_one_error,
)
from radapter.evaluation.cache import user_cache
from radapter.evaluation.evaluate import evaluate, protocol
from radapter.evaluation.held_out import scorer
from radapter.evaluation.mixing import merge_by_gate
from radapter.evaluation.result import Evaluation, SetResult
from radapter.evaluation.scores import headlines
from radapter.evaluation.suite import Suite, held_out_suite, trained_metric
from radapter.files import radapter_facts
from radapter.merging import Trained
from radapter.merging.soup import soup
from radapter.models import LoadedModel, canonical_preprocessing, load
from radapter.recipe import Recipe
from radapter.registry import OF_QUERIES, TASKS, folds
from radapter.registry import load as registered
from radapter.run import Run
from radapter.runtimes.opened import from_loaded
from radapter.study.planning import agrees
from radapter.study.results import Clusters, Folder, curves_of, summed
from radapter.study.suites import suite_for, suite_of
from radapter.training.projecting import merge_by_tpgm
from radapter.versions import versions

COST = ("trained_parameters", "stored_bytes", "steps", "seconds", "peak_memory_bytes", "memory_of",
        "scoring_seconds")  # fmt: skip
FACTS = ("pictures", "classes", "fingerprint", "partial", "remarks")
"""Of a data set, what its entry has from the result of its evaluation"""
INTERRUPTED = 130


@dataclass(frozen=True)
class Training:
    """How a run comes about."""

    key: str
    recipe: str
    """As YAML"""
    needs: list[Training] = field(default_factory=list)
    """The run that it starts from or that is merged, or those that a soup is of"""
    soup: str | None = None
    """The rule, of a soup"""
    merge: dict[str, Any] | None = None
    """As `schema.Merge`, of a run that is merged by a rule"""

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Training:
        """From what `asdict` gives."""
        return cls(**{**tree, "needs": [cls.read(need) for need in tree["needs"]]})


@dataclass(frozen=True)
class Order:
    """What the process is to do."""

    name: str
    """Of the result"""
    training: Training
    zero_shot: bool
    base_hash: str
    parts: list[str]
    """`held-out` and names of suites, those that are missing"""
    suites: list[str]
    """All of the study, as it names them"""
    smoke: bool
    """Only try that all works"""
    precision: str
    """Of scores"""
    auto: bool
    """Whether a method takes it"""
    held_out_alphas: list[float]
    suite_alphas: list[float]
    """Beside the one that `auto` takes"""
    metrics: list[str]
    """Of held-out data"""
    results: str
    """The folder of results"""
    runs: str
    """The folder of trainings"""

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Order:
        """What `text` gave."""
        tree = json.loads(text)
        return cls(**{**tree, "training": Training.read(tree["training"])})


class Stop:
    """A signal asks to stop: training saves its state first, all else is done again."""

    asked = training = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True


@dataclass(frozen=True)
class Subject:
    """What is scored: the base model, and what was trained on it, if anything was."""

    recipe: Recipe
    base: LoadedModel
    trained: Trained | None
    merged: LoadedModel | None = None
    """By a rule that learns on held-out data, in the place of alpha 1"""


def carry_out(order: Order, stop: Stop) -> None:
    """Train and score what is missing, and write the result.

    Raises:
        RadapterError: of training and scoring.
    """
    recipe = recipes.parse(order.training.recipe, order.name)
    folder = Folder(Path(order.results))
    root = Path(order.runs)
    made = [] if order.zero_shot else obtained(order.training, root, order.base_hash[:8], stop)
    trained = merging.open_trained(made[-1]) if made else None
    base = trained.base if trained else load(recipe.model, seed=recipe.seed)
    subject = Subject(recipe, base, trained)
    kept = folder.read_run(order.name)
    started = time.monotonic()
    merging_seconds = 0.0
    if trained and order.training.merge:
        merged = merged_by(made[-1], trained, **order.training.merge)
        subject = replace(subject, merged=merged)
        merging_seconds, started = time.monotonic() - started, time.monotonic()
    if kept is None or "held-out" in order.parts:
        suites = kept["suites"] if kept else {}
        found = held_out(order, subject, kept["held_out"] if kept else None)
        kept = described(order, recipe, made, merging_seconds)
        kept |= {"held_out": found, "suites": suites}
    if "curves" not in kept:  # runs that a soup or a rule merges are those of another method
        apart = order.training.soup or order.training.merge or not made
        kept["curves"] = {} if apart else curves_of(made[-1])
        folder.write_run(order.name, kept)
    for suite in (suite_of(name, order.smoke) for name in order.suites):
        if suite.name in order.parts:
            scored = kept["suites"].get(suite.name, {}).get("alphas", [])
            at = {*order.suite_alphas, *scored, kept["held_out"]["auto"]} - {None}
            kept["suites"][suite.name] = of_suite(order, subject, suite, sorted(at))
    before = kept["cost"]["scoring_seconds"] or 0.0
    kept["cost"]["scoring_seconds"] = round(before + time.monotonic() - started, 3)
    folder.write_run(order.name, kept)


def obtained(wanted: Training, root: Path, base: str, stop: Stop) -> list[Run]:
    """The finished run, and before it those that it needs; each is made if it is not there."""
    chains = [obtained(need, root, base, stop) for need in wanted.needs]
    needs, last = [run for chain in chains for run in chain], [chain[-1] for chain in chains]
    if wanted.merge:
        return needs
    recipe = recipes.parse(wanted.recipe, wanted.key)
    place = root / f"{wanted.key[:16]}-{base}"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):  # another study may want the same run
        if wanted.soup:
            return [*needs, soup_in(place, wanted.soup, last)]
        if last:
            recipe = recipe.model_copy(update={"start": str(last[-1].path)})
        return [*needs, run_in(place, recipe, stop)]


def soup_in(place: Path, rule: str, of: Sequence[Run]) -> Run:
    """The soup of a folder: as it is, or made of these runs."""
    for path in sorted(place.glob("[!.]*/recipe.yaml")):
        return Run(path.parent)
    more: dict[str, Any] = {}
    if rule == "greedy":
        recipe = of[0].recipe()
        more["scorer"] = lambda trained, alpha: scorer(recipe, trained, alpha, device=recipe.device)
    return soup(of, rule, root=place, **more)


def merged_by(
    run: Run, trained: Trained, rule: str, settings: Mapping[str, Any], **of: str
) -> LoadedModel:
    """The run as a rule merges it that learns on held-out data."""
    device = run.recipe().device
    with FileLock(run.path.parent / ".lock"), run.lock():  # another rule may want it
        if rule == "tpgm":
            folder, _ = merge_by_tpgm(run, trained, device=device, **settings)
        elif rule == "per-tower":
            choice = choose_per_tower(run.recipe(), trained, device=device)
            folder, _ = merge_per_tower(run, trained, choice)
        else:
            folder, _ = merge_by_gate(run, trained, rule, device=device, **settings)
    return merging.load_merged(folder)


def run_in(place: Path, recipe: Recipe, stop: Stop) -> Run:
    """The finished run of a folder: as it is, gone on with, or begun."""
    now = recipes.rooted(recipe).model_dump(mode="json")
    runs = [Run(path.parent) for path in sorted(place.glob("[!.]*/recipe.yaml"))]
    found = [run for run in runs if agrees(run.recipe().model_dump(mode="json"), now)]
    stop.training = True
    asked: dict[str, Any] = {"should_stop": lambda: stop.asked}
    try:
        run = (
            training.resume(found[-1], **asked) if found else training.train(recipe, place, **asked)
        )
    finally:
        stop.training = False
    return run


def described(
    order: Order, recipe: Recipe, made: Sequence[Run], merging_seconds: float
) -> dict[str, Any]:
    """What the result says of the run itself, and of those that it needed. What a rule learned in
    the merge was trained too."""
    cost: dict[str, Any] = dict.fromkeys(COST)
    if made:
        facts = radapter_facts(made[-1].adapter)
        cost |= {key: facts.get(key) for key in ("trained_parameters", "steps")}
        cost["stored_bytes"] = made[-1].adapter.stat().st_size
        trained = [own for own in (run.cost() for run in made) if own["seconds"] is not None]
        cost |= trained[-1] if trained else {}
        if trained:
            cost["seconds"] = sum(own["seconds"] for own in trained) + merging_seconds
    return {
        "key": order.training.key,
        "kind": "zero-shot" if order.zero_shot else "trained",
        "recipe": recipe.model_dump(mode="json"),
        "base_hash": order.base_hash,
        "versions": versions(),
        "cost": cost,
    }


# ---------------------------------------------------------------- scores


def curve(
    suite: Suite, subject: Subject, alphas: Sequence[float], precision: str
) -> Iterator[tuple[float, Evaluation]]:
    """A suite at each alpha: the zero-shot model at 0, whose features are kept for all runs; of
    what a rule has merged, it at 1."""
    trained, opened = subject.trained, suite.open()
    where: dict[str, Any] = {"device": subject.recipe.device, "precision": precision}

    def scored(loaded: LoadedModel, **how: Any) -> Evaluation:
        model = from_loaded(loaded, **where)
        return evaluate(suite, model, opened=opened, keep_features=False, **how)

    of_queries = trained is not None and subject.recipe.method.name in OF_QUERIES
    if 0.0 in alphas and not of_queries:
        head = trained.head_at(0.0) if trained and not subject.merged else None
        yield 0.0, scored(replace(subject.base, head=head), cache=user_cache())
    rest = [alpha for alpha in alphas if alpha != 0.0 or of_queries]
    if not rest or trained is None:
        return
    if subject.merged is not None:
        yield 1.0, scored(subject.merged)
    elif folds(trained.facts["method"]["name"]):
        yield from alpha_curve(suite, trained, rest, opened=opened, **where)
    else:
        for alpha in rest:
            yield alpha, scored(trained.attached(alpha))


def held_out(order: Order, subject: Subject, kept: dict[str, Any] | None) -> dict[str, Any]:
    """Scores on held-out data of the training distribution, and the alpha that `auto` takes, if a
    method takes it. What was scored before for another method is scored again."""
    recipe, trained = subject.recipe, subject.trained
    main = trained_metric(recipe)
    before = [point["alpha"] for point in kept["points"]] if kept else []
    alphas = sorted({*order.held_out_alphas, *before})
    asked = order.auto or (kept is not None and kept["auto"] is not None)
    tasks = [t for t in TASKS if registered(TASKS, t).METRICS.keys() & set(order.metrics)]
    suite = held_out_suite(recipe, trained.classes if trained else None)
    suite = suite.model_copy(update={"tasks": tasks})
    found = {}
    for alpha, evaluated in curve(suite, subject, alphas, order.precision):
        found[alpha] = evaluated.sets["held-out"].metrics
        lacking = [name for name in order.metrics if name not in found[alpha]]
        if lacking and not order.zero_shot and alpha != 0:
            raise UsageError(
                f"The model has no {lacking[0]}, by which settings are chosen: in `choose.metric` "
                f"name another, such as {main}."
            )
    of_main = {alpha: scored[main] for alpha, scored in found.items()}
    behind = behind_the_best(of_main)
    auto = None
    if subject.merged:
        auto = 1.0
    elif asked:
        steps = {alpha: own for alpha, own in of_main.items() if alpha in ALPHAS}
        auto = smallest_within_one_error(behind_the_best(steps))
    return {
        "items": len(next(iter(of_main.values())).scores),
        "precision": order.precision,
        "auto": auto,
        "points": [
            {
                "alpha": alpha,
                **{m: float(scored[m].scores.mean()) for m in order.metrics if m in scored},
                "behind": behind[alpha][0],
                "standard_error": behind[alpha][1],
            }
            for alpha, scored in found.items()
        ],
    }


def of_suite(
    order: Order, subject: Subject, suite: Suite, alphas: Sequence[float]
) -> dict[str, Any]:
    """A suite's part of the result."""
    suite, definition = suite_for(suite, subject.recipe, order.precision)
    alphas = alphas if subject.trained else [0.0]
    clusters = Clusters()
    datasets: dict[str, Any] = {}
    for _, evaluated in curve(suite, subject, alphas, order.precision):
        for own in suite.datasets:
            entry = datasets.setdefault(own.name, {"role": own.role})
            add_scores(entry, evaluated.sets[own.name], clusters)
    return {
        "definition": definition,
        "protocol": protocol(suite, canonical_preprocessing(subject.base.config["preprocess_cfg"])),
        "alphas": alphas,
        "clusters": clusters.lists,
        "datasets": datasets,
    }


def add_scores(entry: dict[str, Any], scored: SetResult, clusters: Clusters) -> None:
    """Add what one alpha scores on a data set to its entry."""
    if "metrics" not in entry:
        entry |= {key: scored.facts[key] for key in FACTS} | {"further": {}, "metrics": {}}
    for name, item in scored.further.items():
        if isinstance(item, dict) and "value" in item:
            entry["further"].setdefault(name, []).append(item["value"])
    for name in (name for name in scored.metrics if name in headlines()):
        item = scored.metrics[name]
        place, member = clusters.of(item.clusters)
        if name not in entry["metrics"]:
            items = summed(np.ones(len(member)), member)
            trivial = {"trivial": item.trivial} if item.trivial else {}
            known = {"clusters": place, "chance": item.chance, **trivial, "items": items}
            entry["metrics"][name] = {**known, "right": []}
        entry["metrics"][name]["right"].append(summed(item.scores, member))


# ---------------------------------------------------------------- the process


def main() -> int:
    """Read an order and carry it out; the last line on stderr says why it failed."""
    stop = Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study says so itself
    signal.signal(signal.SIGTERM, stop)
    try:
        carry_out(Order.read(sys.stdin.read()), stop)
    except KeyboardInterrupt:
        return INTERRUPTED
    except RadapterError as error:
        print(f"\n{json.dumps({'message': str(error), 'code': error.exit_code})}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
