"""A suite over alpha, from one stored adapter; choosing alpha on held-out data."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from radapter.data import Dataset
from radapter.evaluation.cache import Cache
from radapter.evaluation.evaluate import evaluate_together
from radapter.evaluation.intervals import standard_error
from radapter.evaluation.result import Evaluation
from radapter.evaluation.scores import Scored, Task
from radapter.evaluation.suite import Suite, held_out_suite, trained_metric
from radapter.files import write_atomic
from radapter.merging import Alpha, Trained, load_base, with_adapters, write_merged
from radapter.models import LoadedModel, weights_hash, with_head
from radapter.recipe import Recipe
from radapter.registry import folds
from radapter.run import Run
from radapter.runtimes.opened import with_runtime
from radapter.runtimes.pytorch import PyTorchRuntime

A = TypeVar("A", bound=Alpha)
ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))
PAIRS = 3 * len(ALPHAS) - 2
"""That `choose_per_tower` scores"""
MEMORY_SHARE = 0.5
"""The share of free memory that the models of several alphas may take together"""
RULE = "the smallest alpha that falls behind the best by no more than one standard error"
PER_TOWER = (
    "of the pairs that fall behind the best by no more than one standard error, that of the "
    "smallest sum"
)


def alpha_curve(
    suite: Suite,
    trained: Trained,
    alphas: Sequence[A],
    *,
    device: str = "cpu",
    precision: str = "fp32",
    opened: dict[str, dict[Task, Dataset]] | None = None,
    cache: Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[A, Evaluation]]:
    """A suite scored at each alpha, from one stored adapter, in PyTorch; without picture features,
    and with runtimes that have given up their models.

    Each picture is read and decoded once for all alphas, or for as many as memory has room for: in
    fp32, weights that an alpha does not change are there once. Merging is on the CPU in float64, so
    the weights are bit for bit those that `radapter merge` writes.

    Args:
        device: `cpu`, `cuda`, or `auto`.
        precision: `fp32`, `fp16` or `bf16`.
        on_progress: called with pictures done and all, each counted for every alpha.
        others: as of `evaluate.evaluate`.
    """
    opened = opened or suite.open()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    base = load_base(trained.facts)
    PyTorchRuntime(base, device, precision)  # an error, if there is no such device or precision
    if precision == "fp32":
        base.model.to(device)
    before, waiting = 0, list(alphas)
    now: list[A] = []

    def over_all(done: int, total: int) -> None:
        on_progress(before * total + len(now) * done, len(alphas) * total)

    while waiting:
        runtimes = _as_many_as_fit(base, trained, waiting, device, precision)
        now, waiting = waiting[: len(runtimes)], waiting[len(runtimes) :]
        evaluated = evaluate_together(
            suite,
            [
                with_runtime(runtime, base, head=trained.head_at(alpha))
                for alpha, runtime in zip(now, runtimes, strict=True)
            ],
            opened=opened,
            cache=cache,
            keep_features=False,
            on_progress=over_all,
        )
        for runtime in runtimes:  # what is scored refers to them, and may be kept
            runtime.release()
        yield from zip(now, evaluated, strict=True)
        before += len(now)


def _as_many_as_fit(
    base: LoadedModel, trained: Trained, alphas: Sequence[Alpha], device: str, precision: str
) -> list[PyTorchRuntime]:
    """Runtimes of the first alphas: one at least, and no more than memory has room for."""
    runtimes: list[PyTorchRuntime] = []
    room, size = MEMORY_SHARE * free_memory(device), 0
    while len(runtimes) < len(alphas) and size <= room:
        model, size = _at(base, trained, alphas[len(runtimes)])
        runtimes.append(PyTorchRuntime(model, device, precision))
        if precision != "fp32":  # the runtime has a copy of all weights; the model is freed
            size = sum(p.nbytes for p in model.model.parameters()) // 2
        room -= size
    return runtimes


def _at(base: LoadedModel, trained: Trained, alpha: Alpha) -> tuple[LoadedModel, int]:
    """The model at a scale, where the base is, and how many bytes it has of its own."""
    head = trained.head_at(alpha)
    if not folds(trained.facts["method"]["name"]):
        assert not isinstance(alpha, tuple)
        loaded = with_adapters(base, trained.facts["method"], trained.tensors, alpha)
        whole = sum(parameter.nbytes for parameter in loaded.model.parameters())
        return dataclasses.replace(loaded, head=head), whole
    there = base.model.state_dict()
    merged = trained.at(alpha)
    start = trained.base.model.state_dict()
    own = {name: value for name, value in merged.items() if not torch.equal(value, start[name])}
    shared = {id(t): t for t in (*base.model.parameters(), *base.model.buffers())}
    module = copy.deepcopy(base.model, shared)
    state = {name: own[name].to(t.device) if name in own else t for name, t in there.items()}
    module.load_state_dict(state, assign=True)
    model = dataclasses.replace(base, model=module.eval().requires_grad_(False), head=head)
    # Of what stands on the CPU.
    model.__dict__["weights_hash"] = weights_hash(with_head(merged, head))
    return model, sum(value.nbytes for value in own.values())


def free_memory(device: str) -> int:
    """Bytes that a device has left, with those that torch keeps for what comes; of the CPU, that
    the machine has."""
    if device.startswith("cuda"):
        place = torch.device(device)
        kept = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        return int(torch.cuda.mem_get_info(place)[0]) + kept
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 4 * 2**30


def choose_alpha(
    recipe: Recipe,
    trained: Trained,
    *,
    device: str = "cpu",
    cache: Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Pick alpha on held-out data of the training distribution, never on shifted data.

    The score is `trained_metric`. The rule is `RULE`, since less of the adapter keeps more of the
    base model. The standard error is that of the difference on the same pictures, so what both get
    right or wrong does not blur it, and several captions of one picture are no independent items.

    Returns:
        `alpha`, `rule`, `metric`, `items` and the `curve`: a list of {alpha, score, behind,
        standard_error}, `behind` being how far the score is below the best.

    Raises:
        UsageError: the recipe has no held-out data.
    """
    suite = held_out_suite(recipe, trained.classes)
    metric = trained_metric(recipe)
    scored: dict[float, Scored] = {}
    for alpha, evaluated in alpha_curve(
        suite, trained, ALPHAS, device=device, cache=cache, on_progress=on_progress
    ):
        scored[alpha] = evaluated.sets["held-out"].metrics[metric]
    points = behind_the_best(scored)
    return {
        "alpha": smallest_within_one_error(points),
        "rule": RULE,
        "metric": metric,
        "items": len(scored[0.0].scores),
        "curve": [
            {
                "alpha": alpha,
                "score": float(item.scores.mean()),
                "behind": points[alpha][0],
                "standard_error": points[alpha][1],
            }
            for alpha, item in scored.items()
        ],
    }


def choose_per_tower(
    recipe: Recipe,
    trained: Trained,
    *,
    device: str = "cpu",
    cache: Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Pick an alpha for the image tower and one for all else on the same held-out data.

    First the towers have one alpha, which `choose_alpha`'s rule picks. Then one of them keeps it,
    and the other has each alpha. Of all that was scored it is `PER_TOWER`.

    Returns:
        `alphas`, a dict of `image` and `text`; `rule`, `metric`, `items` and the `curve`: a list of
        {image, text, score, behind, standard_error}.

    Raises:
        UsageError: the recipe has no held-out data, or the method does not fold.
    """
    if not folds(trained.facts["method"]["name"]):
        trained.at(0.0)  # says so
    suite = held_out_suite(recipe, trained.classes)
    metric = trained_metric(recipe)
    scored: dict[tuple[float, float], Scored] = {}

    def score(pairs: Sequence[tuple[float, float]]) -> None:
        before = len(scored)

        def over_all(done: int, total: int) -> None:
            items = total // len(pairs)
            on_progress(before * items + done, PAIRS * items)

        for pair, evaluated in alpha_curve(
            suite, trained, pairs, device=device, cache=cache, on_progress=over_all
        ):
            scored[pair] = evaluated.sets["held-out"].metrics[metric]

    score([(alpha, alpha) for alpha in ALPHAS])
    same = smallest_within_one_error({a: own for (a, _), own in behind_the_best(scored).items()})
    others = [alpha for alpha in ALPHAS if alpha != same]
    score([(alpha, same) for alpha in others] + [(same, alpha) for alpha in others])
    points = behind_the_best(scored)
    image, text = min(
        (pair for pair, (lost, error) in points.items() if lost <= error),
        key=lambda pair: (round(sum(pair), 6), points[pair][0]),
    )
    return {
        "alphas": {"image": image, "text": text},
        "rule": PER_TOWER,
        "metric": metric,
        "items": len(scored[0.0, 0.0].scores),
        "curve": [
            {
                "image": pair[0],
                "text": pair[1],
                "score": float(item.scores.mean()),
                "behind": points[pair][0],
                "standard_error": points[pair][1],
            }
            for pair, item in scored.items()
        ],
    }


def merge_per_tower(run: Run, trained: Trained, choice: dict[str, Any]) -> tuple[Path, bool]:
    """Write what `choose_per_tower` chose, see `merging.write_merged`, and how it did:
    `merged/alpha-per-tower.json`."""
    if trained.which == "best":
        choice["adapter"] = "best"
    written = write_merged(run, (choice["alphas"]["image"], choice["alphas"]["text"]), trained)
    path = run.path / "merged" / "alpha-per-tower.json"
    write_atomic(path, json.dumps(choice, indent=2) + "\n")
    return written


def write_choice(run: Run, trained: Trained, choice: dict[str, Any]) -> None:
    """Keep in the run how `choose_alpha` chose: `merged/alpha-auto.json`."""
    if trained.which == "best":
        choice["adapter"] = "best"
    path = run.path / "merged" / "alpha-auto.json"
    write_atomic(path, json.dumps(choice, indent=2) + "\n")


def base_alone(choice: Mapping[str, Any]) -> str | None:
    """What to say where alpha 0 is chosen: nothing of the training is in what is merged."""
    if choice["alpha"] != 0:
        return None
    best = max(choice["curve"], key=lambda point: point["score"])
    zero = next(point for point in choice["curve"] if point["alpha"] == 0)
    if best["alpha"] == 0:
        why = f"no alpha does better on the {choice['items']:,} held-out items than the base model"
        helps = "train longer, or with a larger optimisation.lr"
    else:
        why = (
            f"alpha {best['alpha']:g} is better by {100 * zero['behind']:.1f} points on the "
            f"{choice['items']:,} held-out items, which is within one standard error, "
            f"{100 * zero['standard_error']:.1f}"
        )
        helps = f"hold out more pictures, train longer, or choose: --alpha {best['alpha']:g}"
    return (
        f"alpha 0 is the base model: nothing of the training is in what was merged. By the rule: "
        f"{why}. What helps: {helps}."
    )


def behind_the_best(scored: Mapping[A, Scored]) -> dict[A, tuple[float, float]]:
    """How far each alpha's score is below the best one's, and the standard error of that."""
    best = max(scored.values(), key=lambda item: item.scores.mean())
    found = {}
    for alpha, item in scored.items():
        lost = best.scores.astype(float) - item.scores
        found[alpha] = (float(lost.mean()), standard_error(lost, best.clusters))
    return found


def smallest_within_one_error(points: Mapping[float, tuple[float, float]]) -> float:
    """The rule of `--alpha auto`, from what `behind_the_best` found."""
    return min(alpha for alpha, (lost, error) in points.items() if lost <= error)
