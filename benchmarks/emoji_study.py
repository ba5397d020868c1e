"""The built-in study: what fine-tuning forgets, what each method keeps, and how alpha trades.

    python benchmarks/emoji_study.py choose    settings, on validation concepts of noto
    python benchmarks/emoji_study.py final     the chosen ones, on five folds and with more seeds
    python benchmarks/emoji_study.py report    tables in Markdown

Every run is a process of its own, which gives its time and its peak memory, and leaves one file in
`--out`; a finished one is not repeated, so both commands go on where they were stopped. `--jobs 2`
runs two at a time.

Choosing looks at noto alone, the style that is trained: accuracy and caption R@1 of its validation
concepts, the mean of the two at the alpha that `merge --alpha auto` takes. One factor at a time.
Test concepts, and every other style, are looked at only in `final`, of settings chosen by then.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer

from radapter import evaluation, merging, training
from radapter import recipe as recipes
from radapter.data import open_data
from radapter.evaluation.evaluate import Scored
from radapter.evaluation.intervals import mean_interval
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.models import LoadedModel, load
from radapter.recipe import Recipe
from radapter.run import write_atomic
from radapter.runtimes.pytorch import PyTorchRuntime

OUT = Path(__file__).parent / "results" / "emoji_study"
METRICS = ("accuracy", "text_to_image_r1", "image_to_text_r1")
MARKED = (0.5, 1.0)
"""Alphas at which hits are kept item by item, beside the chosen one, for paired comparisons"""
FINAL = [(fold, 0) for fold in range(5)] + [(0, 1), (0, 2)]
"""(fold, seed) of the finalists"""
app = typer.Typer(add_completion=False, help=__doc__.split("\n")[0])
OutOption = Annotated[Path, typer.Option(help="Where results are kept.")]
JobsOption = Annotated[int, typer.Option(help="Runs at a time, each on its share of the cores.")]


# ---------------------------------------------------------------- what is compared


@dataclass(frozen=True)
class Setting:
    """Changes to the recipe `emoji`; `probe` is the weight decay of a linear probe instead."""

    name: str
    overrides: tuple[str, ...] = ()
    probe: float | None = None


FULL = ("method={name: full}",)
LORA = ("method={name: lora, rank: 21}",)  # 725,760 parameters, beside 737,280 of R-Adapter
LOW_RANK = ("method.rank=16",)
PAIR = ("objective={positives: pair, margin: 0.0}",)


def learning_rates(method: str, overrides: tuple[str, ...], rates: list[str]) -> list[Setting]:
    return [Setting(f"{method} lr {r}", (*overrides, f"optimisation.lr={r}")) for r in rates]


RATES = {
    "full": learning_rates("full", (*FULL, *PAIR), ["3e-5", "1e-4", "3e-4", "8e-4"]),
    "lora": learning_rates("lora", (*LORA, *PAIR), ["3e-4", "1e-3", "3e-3"]),
    "r-adapter": learning_rates("r-adapter", (), ["3e-4", "1e-3", "2e-3"]),
    "r-adapter low rank": learning_rates("r-adapter low rank", LOW_RANK, ["1e-3", "3e-3", "1e-2"]),
    "linear probe": [
        Setting(f"linear probe wd {decay:g}", probe=decay) for decay in (1e-4, 1e-3, 1e-2)
    ],
}
ADDITIONS = {
    "retain 0.3": ("objective.retain={weight: 0.3}",),
    "retain 1": ("objective.retain={weight: 1.0}",),
    "retain 3": ("objective.retain={weight: 3.0}",),
    "captions 0.25": ("objective.mix_captions=0.25",),
    "captions 0.5": ("objective.mix_captions=0.5",),
}
PARTS = {
    "without dropping": ("method.drop=0.0",),
    "without averaging": ("method.average={momentum: 0.0}",),
    "with the plain contrastive loss": PAIR,
}
"""What each part of R-Adapter gives. Without re-scaling is its curve at alpha 1."""


def stages(out: Path) -> list[list[Setting]]:
    """Settings to try, in the order in which one needs the results of another."""
    rates = [setting for settings in RATES.values() for setting in settings]
    later = [
        Setting(f"{method}, {name}", best(out, RATES[method]).overrides + changes)
        for method in ("full", "r-adapter")
        for name, changes in ADDITIONS.items()
        if done(out, RATES[method])
    ]
    return [rates, later]


def finalists(out: Path) -> list[Setting]:
    """The best setting of each kind, under the kind's name, and R-Adapter without its parts."""
    chosen = [Setting("zero-shot")]
    for method, settings in RATES.items():
        setting = best(out, settings)
        chosen.append(Setting(method, setting.overrides, setting.probe))
    for method in ("full", "r-adapter"):
        own = best(out, RATES[method]).overrides
        for kind in ("retain", "captions"):
            tried = [
                Setting(f"{method}, {name}", own + changes)
                for name, changes in ADDITIONS.items()
                if name.startswith(kind)
            ]
            chosen.append(Setting(f"{method} + {kind}", best(out, tried).overrides))
    own = best(out, RATES["r-adapter"]).overrides
    chosen += [Setting(f"r-adapter {name}", own + changes) for name, changes in PARTS.items()]
    return chosen


def done(out: Path, settings: list[Setting]) -> bool:
    return all(result_path(out, "choose", setting.name, 0, 0).is_file() for setting in settings)


def best(out: Path, settings: list[Setting]) -> Setting:
    """The setting with the highest validation score, see `validation_score`."""
    if not done(out, settings):
        raise typer.BadParameter("some settings have not been tried yet: run `choose` first")

    def score(setting: Setting) -> float:
        return float(read(out, "choose", setting.name, 0, 0)["score"])

    return max(settings, key=score)


# ---------------------------------------------------------------- one run


def both_tasks(recipe: Recipe, split: str) -> Suite:
    """Classification and retrieval of one split of the style that is trained."""
    data = recipe.data.model_copy(update={"split": split})
    dataset = SuiteDataset(name="noto", role="in-distribution", data=data)
    return Suite(
        name=f"noto-{split}",
        templates=recipe.data.templates,
        tasks=["classification", "retrieval"],
        datasets=[dataset],
    )


Curve = dict[float, dict[str, dict[str, Scored]]]
"""By alpha, data set and metric"""


def curve(suite: Suite, model: LoadedModel, at: dict[float, dict[str, Any]]) -> Curve:
    """The suite scored at every alpha, from the state dict at each."""
    opened, found = suite.open(), {}
    for alpha, state in at.items():
        model.model.load_state_dict(state)
        runtime = PyTorchRuntime(model)
        found[alpha] = evaluation.evaluate(suite, runtime, model, opened=opened).metrics
    return found


def auto_alpha(validation: Curve) -> float:
    """What `merge --alpha auto` would take."""
    return merging.smallest_within_one_error(
        {alpha: metrics["noto"]["accuracy"] for alpha, metrics in validation.items()}
    )


def linear_probe(
    recipe: Recipe, decay: float, model: LoadedModel, suites: list[Suite]
) -> list[Curve]:
    """Logistic regression on frozen features of the training pictures, from the zero-shot head.

    Interpolated with that head over alpha. Retrieval is the zero-shot model's at every alpha.
    """
    runtime = PyTorchRuntime(model)
    train_suite = both_tasks(recipe, "train")
    base = [evaluation.evaluate(suite, runtime, model) for suite in (train_suite, *suites)]
    dataset = train_suite.open()["noto"]["classification"]
    names = dataset.class_names
    heads = [torch.stack([e.text_features[f"class: {n}"] for n in names]).double() for e in base]
    kappa = float(model.model.logit_scale.detach().exp())
    # The pictures of the first task, classification, come first.
    x = base[0].image_features["noto"][: len(dataset)].double()
    y = torch.tensor(dataset.labels)

    change = torch.zeros_like(heads[0], requires_grad=True)
    solver = torch.optim.LBFGS([change], max_iter=1000, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(kappa * x @ (heads[0] + change).T, y)
        loss = loss + 0.5 * decay * kappa**2 * change.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    change = change.detach()
    curves: list[Curve] = []
    for suite, evaluated in zip(suites, base[1:], strict=True):
        opened = suite.open()
        found: Curve = {}
        for alpha in merging.ALPHAS:
            found[alpha] = {}
            for name, tasks in opened.items():
                classes = tasks["classification"]
                features = evaluated.image_features[name][: len(classes)].double()
                predicted = (features @ (heads[0] + alpha * change).T).argmax(dim=1)
                old = evaluated.metrics[name]
                right = (predicted == torch.tensor(classes.labels)).numpy()
                accuracy = Scored(right, old["accuracy"].clusters, old["accuracy"].chance)
                found[alpha][name] = {**old, "accuracy": accuracy}
        curves.append(found)
    return curves


@app.command()
def one(phase: str, settings: str, fold: int, seed: int, out: OutOption = OUT) -> None:
    """One run, in this process. `settings` is a Setting as JSON; called by `choose` and `final`."""
    given = json.loads(settings)
    setting = Setting(given["name"], tuple(given["overrides"]), given["probe"])
    overrides = [f"data.fold={fold}", f"seed={seed}", *setting.overrides]
    recipe = recipes.load(recipes.locate("emoji"), overrides)
    suites = [both_tasks(recipe, "validation")]
    if phase == "final":
        suites.append(evaluation.load_suite("emoji-shifts").for_recipe(recipe))
    model = load(recipe.model)
    facts: dict[str, Any] = {"trainable": 0, "stored_bytes": 0, "seconds": 0.0, "start_share": None}
    if setting.name == "zero-shot":
        state = model.model.state_dict()
        curves = [curve(suite, model, {0.0: state}) for suite in suites]
    elif setting.probe is not None:
        curves = linear_probe(recipe, setting.probe, model, suites)
        size = len(open_data(recipe.data).class_names) * model.config["model_cfg"]["embed_dim"]
        facts |= {"trainable": size, "stored_bytes": 4 * size}
    else:
        with tempfile.TemporaryDirectory() as folder:
            plans: list[training.Plan] = []
            run = training.train(recipe, Path(folder), on_start=lambda _, plan: plans.append(plan))
            last = json.loads(run.metrics.read_text().splitlines()[-1])
            facts = {
                "trainable": plans[0].trainable,
                "stored_bytes": run.adapter.stat().st_size,
                "seconds": last["seconds"],
                "start_share": last["start_share"],
            }
            facts["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            trained = merging.open_trained(run)
            at = {alpha: trained.at(alpha) for alpha in merging.ALPHAS}
            curves = [curve(suite, model, at) for suite in suites]
    alpha = auto_alpha(curves[0])
    chosen = curves[0][alpha]["noto"]
    score = np.mean([chosen[m].scores.mean() for m in ("accuracy", "text_to_image_r1")])
    content = {
        "setting": given,
        "fold": fold,
        "seed": seed,
        "alpha": alpha,
        "score": float(score),
        **facts,
        "validation": [plain(a, m["noto"]) for a, m in curves[0].items()],
    }
    if phase == "final":
        kept = {0.0, alpha, *MARKED} & set(curves[1])
        content["test"] = {
            name: {
                "curve": [plain(a, metrics[name]) for a, metrics in curves[1].items()],
                "hits": {str(a): hits(curves[1][a][name]) for a in sorted(kept)},
            }
            for name in curves[1][alpha]
        }
        # The same for every run of a fold.
        of_items = {
            name: {m: metrics[m].clusters.tolist() for m in METRICS}
            for name, metrics in curves[1][alpha].items()
        }
        write_atomic(concepts_path(out, fold), json.dumps(of_items) + "\n")
    write_atomic(result_path(out, phase, setting.name, fold, seed), json.dumps(content) + "\n")


def plain(alpha: float, metrics: dict[str, Scored]) -> dict[str, float]:
    return {"alpha": alpha} | {m: float(metrics[m].scores.mean()) for m in METRICS}


def hits(metrics: dict[str, Scored]) -> dict[str, str]:
    """By metric: for each item, in the order of the data, 1 for a hit and 0 for a miss."""
    return {m: "".join("01"[int(score)] for score in metrics[m].scores) for m in METRICS}


# ---------------------------------------------------------------- all of them


def result_path(out: Path, phase: str, name: str, fold: int, seed: int) -> Path:
    return out / phase / f"{name.replace(' ', '_')}-fold{fold}-seed{seed}.json"


def concepts_path(out: Path, fold: int) -> Path:
    """The concept of every item that is tested, by data set and metric."""
    return out / f"concepts-fold{fold}.json"


def read(out: Path, phase: str, name: str, fold: int, seed: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(result_path(out, phase, name, fold, seed).read_text())
    return content


def run_all(phase: str, tasks: list[tuple[Setting, int, int]], jobs: int, out: Path) -> None:
    todo = [t for t in tasks if not result_path(out, phase, t[0].name, t[1], t[2]).is_file()]
    print(f"{phase}: {len(tasks) - len(todo)} of {len(tasks)} runs are there", flush=True)
    threads = max(1, torch.get_num_threads() // jobs)

    def call(task: tuple[Setting, int, int]) -> None:
        setting, fold, seed = task
        command = [sys.executable, __file__, "one", phase, json.dumps(vars(setting))]
        command += [str(fold), str(seed), "--out", str(out)]
        environment = {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, env=os.environ | environment)
        content = read(out, phase, setting.name, fold, seed)
        print(
            f"{setting.name}, fold {fold}, seed {seed}: alpha {content['alpha']}, validation "
            f"{100 * content['score']:.1f}, {content['seconds']:.0f} s",
            flush=True,
        )

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(call, todo))


@app.command()
def choose(jobs: JobsOption = 1, out: OutOption = OUT) -> None:
    """Try settings on validation concepts of noto, fold 0, seed 0."""
    for number in range(len(stages(out))):
        run_all("choose", [(setting, 0, 0) for setting in stages(out)[number]], jobs, out)


@app.command()
def final(jobs: JobsOption = 1, out: OutOption = OUT) -> None:
    """Test the chosen settings on every fold and with more seeds."""
    # By fold and seed first: whenever this is stopped, the finalists have equally many runs.
    tasks = [(setting, fold, seed) for fold, seed in FINAL for setting in finalists(out)]
    run_all("final", tasks, jobs, out)


# ---------------------------------------------------------------- the tables


ROLES = {
    "noto": ["noto"],
    "unseen": ["emojione", "emojione-monotone"],
    "seen": [
        "twemoji",
        "fluent-emoji",
        "fluent-emoji-flat",
        "fluent-emoji-high-contrast",
        "noto-v1",
    ],
}


def items(
    results: list[dict[str, Any]], role: str, metric: str, alpha: float | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hits of all runs, and their concepts, by data set of a role. None: each run's own alpha."""
    scores, clusters = [], []
    for name in ROLES[role]:
        tests = [result["test"][name] for result in results]
        at = [str(result["alpha"] if alpha is None else alpha) for result in results]
        kept = [test["hits"][a][metric] for test, a in zip(tests, at, strict=True)]
        scores.append(np.array([int(hit) for hits in kept for hit in hits]))
        clusters.append(np.array([c for r in results for c in r["concepts"][name][metric]]))
    return scores, clusters


def cell(results: list[dict[str, Any]], role: str, metric: str, alpha: float | None) -> str:
    scores, clusters = items(results, role, metric, alpha)
    low, high = mean_interval(scores, clusters)
    return f"{100 * np.mean([s.mean() for s in scores]):.1f} ±{50 * (high - low):.1f}"


def difference(one: list[dict[str, Any]], two: list[dict[str, Any]], role: str, metric: str) -> str:
    """One minus two at the alpha of each, on the same items, concepts resampled in pairs."""
    (ours, clusters), (theirs, _) = (items(results, role, metric, None) for results in (one, two))
    apart = [a.astype(float) - b for a, b in zip(ours, theirs, strict=True)]
    low, high = mean_interval(apart, clusters)
    mean = np.mean([d.mean() for d in apart])
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


@app.command()
def report(out: OutOption = OUT) -> None:
    """Print the tables: every finalist at its own alpha, and its distance from the reference."""
    found: dict[str, list[dict[str, Any]]] = {}
    for setting in finalists(out):
        paths = [result_path(out, "final", setting.name, fold, seed) for fold, seed in FINAL]
        found[setting.name] = [json.loads(path.read_text()) for path in paths if path.is_file()]
        for result in found[setting.name]:
            result["concepts"] = json.loads(concepts_path(out, result["fold"]).read_text())
    common = {name: len(results) for name, results in found.items()}
    print(f"Runs per row: {sorted(set(common.values()))}; in %, ± half of a 95 % interval.\n")
    columns = [(role, metric) for metric in METRICS for role in ROLES]
    print("| | alpha | " + " | ".join(f"{m} {r}" for r, m in columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for name, results in found.items():
        for alpha in (None, 1.0) if "1.0" in results[0]["test"]["noto"]["hits"] else (None,):
            mean = np.mean([r["alpha"] for r in results]) if alpha is None else alpha
            cells = [cell(results, role, metric, alpha) for role, metric in columns]
            print(f"| {name} | {mean:.2f} | " + " | ".join(cells) + " |")
    print("\n| | trained parameters | stored, MB | seconds | peak memory, MB |")
    print("|---|---|---|---|---|")
    for name, results in found.items():
        seconds = np.mean([r["seconds"] for r in results])
        peak = np.mean([r.get("peak_bytes", 0) for r in results]) / 1e6
        first = results[0]
        stored = first["stored_bytes"] / 1e6
        print(f"| {name} | {first['trainable']:,} | {stored:.1f} | {seconds:.0f} | {peak:.0f} |")
    print("\nDifferences from `full` interpolated, each at its own alpha, with 95 % intervals:\n")
    print("| | " + " | ".join(f"{m} {r}" for r, m in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name, results in found.items():
        if name != "full":
            cells = [difference(results, found["full"], role, m) for role, m in columns]
            print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    app()
