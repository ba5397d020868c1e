"""The built-in study: what fine-tuning forgets, what each method keeps, and how alpha trades.

    python benchmarks/emoji_study.py choose    settings, on validation concepts of noto
    python benchmarks/emoji_study.py final     the chosen ones, on five folds and with more seeds
    python benchmarks/emoji_study.py report    tables in Markdown; what demo and pictures show
    python benchmarks/emoji_study.py pictures  the pictures in docs/

Two recipes, each with its own table: `emoji` trains to name classes, `emoji-retrieval` to find
pictures by captions; what one trains is the untrained task of the other. Every run is a process of
its own, which gives its time and its peak memory, and leaves one file in `--out`; a finished one is
not repeated, so both commands go on where they were stopped. `--jobs 2` runs two at a time.

Choosing looks at noto alone, the style that is trained: accuracy and caption R@1 of the validation
concepts of fold 0, the mean of the two at the alpha that `merge --alpha auto` takes. One factor at
a time; additions and omissions keep the learning rate of their method. No other style is looked at
before `final`. The validation concepts of fold 0 are the test concepts of fold 1: only fold 0 tests
on concepts that no choice has seen, so the tables come for fold 0 and for all folds.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import emoji_shift_table
import emoji_study_tables
import numpy as np
import torch
import torch.nn.functional as F
import typer

from radapter import merging, training
from radapter import recipe as recipes
from radapter.data import emoji, open_data
from radapter.data.pairs import templates_of
from radapter.evaluation import alphas
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.result import Evaluation, SetResult, TextKey
from radapter.evaluation.scores import Scored, metric_of
from radapter.evaluation.suite import Suite, SuiteDataset, load_suite, trained_metric
from radapter.files import write_atomic
from radapter.models import LoadedModel, load
from radapter.recipe import Recipe
from radapter.reporting import plots, study
from radapter.runtimes.opened import from_loaded

OUT = Path(__file__).parent / "results" / "emoji_study"
SUMMARY = study.PATH
DOCS = Path(__file__).parents[1] / "docs"
METRICS = emoji_study_tables.METRICS
TEST_ALPHAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Where finalists are tested, beside the alpha that validation chose"""
FINAL = [(fold, fold) for fold in range(5)]
"""(fold, seed) of the finalists: every fold, each with a seed of its own"""
FEWER = FINAL[:3]
"""Of the methods on the recipe of retrieval"""
FEWEST = FINAL[:2]
"""Of additions to the finalists and of R-Adapter without its parts"""
MAIN = ("zero-shot", "full", "linear probe", "lora", "r-adapter", "r-adapter low rank")
app = typer.Typer(add_completion=False, help=__doc__.split("\n")[0])
OutOption = Annotated[Path, typer.Option(help="Where results are kept.")]
JobsOption = Annotated[int, typer.Option(help="Runs at a time, each on its share of the cores.")]


# ---------------------------------------------------------------- what is compared


@dataclass(frozen=True)
class Setting:
    """Changes to a recipe; `probe` is the weight decay of a linear probe instead."""

    name: str
    overrides: tuple[str, ...] = ()
    probe: float | None = None
    recipe: str = "emoji"


FULL = ("method={name: full}",)
LORA = ("method={name: lora, rank: 21}",)  # 725,760 parameters, beside 737,280 of R-Adapter
LOW_RANK = ("method.rank=16",)
PAIR = ("objective={positives: pair, margin: 0.0}",)


def learning_rates(
    method: str, overrides: tuple[str, ...], rates: list[str], recipe: str = "emoji"
) -> list[Setting]:
    prefix = "" if recipe == "emoji" else "retrieval "
    return [
        Setting(f"{prefix}{method} lr {r}", (*overrides, f"optimisation.lr={r}"), recipe=recipe)
        for r in rates
    ]


RATES = {
    "full": learning_rates("full", FULL, ["1e-5", "3e-5", "1e-4", "3e-4", "8e-4"]),
    "full, plain loss": learning_rates("full, plain loss", FULL + PAIR, ["1e-5", "3e-5", "1e-4"]),
    "lora": learning_rates("lora", LORA, ["1e-4", "3e-4", "1e-3", "3e-3"]),
    "r-adapter": learning_rates("r-adapter", (), ["1e-4", "3e-4", "1e-3", "3e-3"]),
    "r-adapter low rank": learning_rates("r-adapter low rank", LOW_RANK, ["3e-4", "1e-3", "3e-3"]),
    "linear probe": [
        Setting(f"linear probe wd {decay:g}", probe=decay) for decay in (1e-4, 1e-3, 1e-2)
    ],
}
RETRIEVAL = "emoji-retrieval"
RETRIEVAL_RATES = {
    "full": learning_rates("full", FULL, ["3e-5", "1e-4", "3e-4"], RETRIEVAL),
    "lora": learning_rates("lora", LORA, ["3e-4", "1e-3"], RETRIEVAL),
    "r-adapter": learning_rates("r-adapter", (), ["1e-4", "3e-4", "1e-3"], RETRIEVAL),
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


def with_additions(out: Path, method: str, kind: str = "") -> list[Setting]:
    """The best setting of a method with each addition whose name starts with `kind`."""
    own = best(out, RATES[method]).overrides
    return [
        Setting(f"{method}, {name}", own + changes)
        for name, changes in ADDITIONS.items()
        if name.startswith(kind)
    ]


def finalists(out: Path, recipe: str) -> list[Setting]:
    """The best setting of each kind, under the kind's name, and R-Adapter without its parts."""
    if recipe == RETRIEVAL:
        chosen = [Setting("retrieval zero-shot", recipe=recipe)]
        for method, settings in RETRIEVAL_RATES.items():
            setting = best(out, settings)
            chosen.append(Setting(f"retrieval {method}", setting.overrides, recipe=recipe))
        return chosen
    chosen = [Setting("zero-shot")]
    for method, settings in RATES.items():
        setting = best(out, settings)
        chosen.append(Setting(method, setting.overrides, setting.probe))
    for method in ("full", "r-adapter"):
        for kind in ("retain", "captions"):
            setting = best(out, with_additions(out, method, kind))
            chosen.append(Setting(f"{method} + {kind}", setting.overrides))
    own = best(out, RATES["r-adapter"]).overrides
    chosen += [Setting(f"r-adapter {name}", own + changes) for name, changes in PARTS.items()]
    return chosen


def best(out: Path, settings: list[Setting]) -> Setting:
    """The setting with the highest validation score, of equal ones the first; every one of them has
    to have been tried."""
    results = [read(out, "choose", setting, 0, 0) for setting in settings]
    if None in results:
        raise typer.BadParameter("some settings have not been tried yet: run `choose` first")
    scores = [result["score"] for result in results if result]
    return settings[scores.index(max(scores))]


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


def auto_alpha(recipe: Recipe, validation: Curve) -> float:
    """What `merge --alpha auto` would take: it looks at the trained task."""
    metric = trained_metric(recipe)
    scored = {alpha: metrics["noto"][metric] for alpha, metrics in validation.items()}
    return alphas.smallest_within_one_error(alphas.behind_the_best(scored))


def kept(of: SetResult) -> torch.Tensor:
    """Features of pictures [pictures, dim]."""
    assert of.image_features is not None
    return of.image_features.double()


def linear_probe(
    recipe: Recipe, decay: float, model: LoadedModel, suites: list[Suite]
) -> list[Curve]:
    """Logistic regression on frozen features of the training pictures, from the zero-shot head.

    Interpolated with that head over alpha. Retrieval is the zero-shot model's at every alpha.
    """
    opened = from_loaded(model)
    train_suite = both_tasks(recipe, "train")
    base = [evaluate(suite, opened) for suite in (train_suite, *suites)]
    dataset = train_suite.open()["noto"]["classification"]
    names = dataset.class_names
    prompts = tuple(templates_of(train_suite.templates))
    keys = [TextKey("class", name, prompts) for name in names]
    head = torch.stack([base[0].text_features[key] for key in keys]).double()
    kappa = float(model.model.logit_scale.detach().exp())
    # The pictures of the first task, classification, come first.
    x = kept(base[0].sets["noto"])[: len(dataset)]
    y = torch.tensor(dataset.labels)

    change = torch.zeros_like(head, requires_grad=True)
    solver = torch.optim.LBFGS([change], max_iter=1000, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(kappa * x @ (head + change).T, y)
        loss = loss + 0.5 * decay * kappa**2 * change.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    change = change.detach()
    found_curves: list[Curve] = []
    for suite, evaluated in zip(suites, base[1:], strict=True):
        parts = suite.open()
        found: Curve = {}
        for alpha in alphas.ALPHAS:
            found[alpha] = {}
            for name, tasks in parts.items():
                classes = tasks["classification"]
                features = kept(evaluated.sets[name])[: len(classes)]
                predicted = (features @ (head + alpha * change).T).argmax(dim=1)
                old = evaluated.sets[name].metrics
                right = (predicted == torch.tensor(classes.labels)).numpy()
                accuracy = Scored(right, old["accuracy"].clusters, old["accuracy"].chance)
                found[alpha][name] = {**old, "accuracy": accuracy}
        found_curves.append(found)
    return found_curves


@app.command()
def one(phase: str, settings: str, fold: int, seed: int, out: OutOption = OUT) -> None:
    """One run, in this process. `settings` is a Setting as JSON; called by `choose` and `final`."""
    given = json.loads(settings)
    setting = Setting(**given | {"overrides": tuple(given["overrides"])})
    overrides = [f"data.fold={fold}", f"seed={seed}", *setting.overrides]
    recipe = recipes.load(recipes.locate(setting.recipe), overrides)
    suites = [both_tasks(recipe, "validation")]
    if phase == "final":
        suites.append(load_suite("emoji-shifts").for_recipe(recipe))
    model = load(recipe.model)
    # What is not measured stays None: a linear probe is not timed.
    facts: dict[str, Any] = dict.fromkeys(
        ["trainable", "stored_bytes", "seconds", "start_share", "peak_bytes"]
    )
    if setting.name.endswith("zero-shot"):
        opened = from_loaded(model)
        scored = [_metrics([(0.0, evaluate(s, opened))]) for s in suites]
    elif setting.probe is not None:
        scored = linear_probe(recipe, setting.probe, model, suites)
        size = len(open_data(recipe.data).class_names) * model.config["model_cfg"]["embed_dim"]
        facts |= {"trainable": size, "stored_bytes": 4 * size}
    else:
        with tempfile.TemporaryDirectory() as folder:
            plans: list[training.Plan] = []
            run = training.train(recipe, Path(folder), on_start=lambda _, plan: plans.append(plan))
            last = json.loads(run.metrics.read_text().splitlines()[-1])
            facts |= {
                "trainable": plans[0].trainable,
                "stored_bytes": run.adapter.stat().st_size,
                "seconds": last["seconds"],
                "start_share": last["start_share"],
            }
            facts["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            trained = merging.open_trained(run)
            scored = [_metrics(alphas.alpha_curve(suites[0], trained))]
            at = sorted({*TEST_ALPHAS, auto_alpha(recipe, scored[0])})
            scored += [_metrics(alphas.alpha_curve(suite, trained, at)) for suite in suites[1:]]
    alpha = auto_alpha(recipe, scored[0])
    chosen = scored[0][alpha]["noto"]
    score = np.mean([chosen[m].scores.mean() for m in ("accuracy", "text_to_image_r1")])
    content = {
        "setting": given,
        "base_hash": model_hash(),
        "threads": torch.get_num_threads(),
        "fold": fold,
        "seed": seed,
        "alpha": alpha,
        "score": float(score),
        **facts,
        "validation": [plain(a, m["noto"]) for a, m in scored[0].items()],
    }
    if phase == "final":
        content["test"] = {
            name: {str(a): hits(metrics[name]) for a, metrics in scored[1].items()}
            for name in scored[1][alpha]
        }
        # The same for every run of a fold.
        of_items = {
            name: {m: metrics[m].clusters.tolist() for m in METRICS}
            for name, metrics in scored[1][alpha].items()
        }
        write_atomic(concepts_path(out, fold), json.dumps(of_items) + "\n")
    write_atomic(result_path(out, phase, setting.name, fold, seed), json.dumps(content) + "\n")


def _metrics(evaluated: Iterable[tuple[float, Evaluation]]) -> Curve:
    return {
        alpha: {name: own.metrics for name, own in found.sets.items()} for alpha, found in evaluated
    }


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


@functools.cache
def model_hash() -> str:
    """Hash of the built-in model as it is shipped now."""
    return load("emoji-clip").weights_hash


def read(out: Path, phase: str, setting: Setting, fold: int, seed: int) -> dict[str, Any] | None:
    """A result of this very setting on the present base model; None if there is none yet."""
    path = result_path(out, phase, setting.name, fold, seed)
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    same = content["setting"] == json.loads(json.dumps(vars(setting)))
    return content if same and content["base_hash"] == model_hash() else None


def run_all(phase: str, tasks: list[tuple[Setting, int, int]], jobs: int, out: Path) -> None:
    todo = [task for task in tasks if read(out, phase, *task) is None]
    print(f"{phase}: {len(tasks) - len(todo)} of {len(tasks)} runs are there", flush=True)
    threads = max(1, torch.get_num_threads() // jobs)

    def call(task: tuple[Setting, int, int]) -> None:
        setting, fold, seed = task
        command = [sys.executable, __file__, "one", phase, json.dumps(vars(setting))]
        command += [str(fold), str(seed), "--out", str(out)]
        environment = {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, env=os.environ | environment)
        content = read(out, phase, setting, fold, seed)
        assert content, "the run has ended without a result"
        print(
            f"{setting.name}, fold {fold}, seed {seed}: alpha {content['alpha']}, validation "
            f"{100 * content['score']:.1f}",
            flush=True,
        )

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(call, todo))


@app.command()
def choose(jobs: JobsOption = 1, out: OutOption = OUT) -> None:
    """Try settings on validation concepts of noto, fold 0, seed 0."""
    rates = [s for grid in (RATES, RETRIEVAL_RATES) for settings in grid.values() for s in settings]
    run_all("choose", [(setting, 0, 0) for setting in rates], jobs, out)
    added = [s for method in ("full", "r-adapter") for s in with_additions(out, method)]
    run_all("choose", [(setting, 0, 0) for setting in added], jobs, out)


@app.command()
def final(jobs: JobsOption = 1, out: OutOption = OUT) -> None:
    """Test the chosen settings: the methods on every fold, the rest on fewer."""
    emoji_settings, retrieval = finalists(out, "emoji"), finalists(out, RETRIEVAL)
    main = [setting for setting in emoji_settings if setting.name in MAIN]
    rest = [setting for setting in emoji_settings if setting.name not in MAIN]
    tasks = [
        (setting, fold, seed)
        for settings, pairs in ((main, FINAL), (retrieval, FEWER), (rest, FEWEST))
        for fold, seed in pairs
        for setting in settings
    ]
    run_all("final", tasks, jobs, out)


@app.command()
def report(out: OutOption = OUT) -> None:
    """Print the tables, for fold 0 and for every fold, and write what the pictures show."""
    summary: dict[str, Any] = {"schema_version": 1, "base_hash": model_hash(), "tables": {}}
    emoji_settings = finalists(out, "emoji")
    for title, recipe, settings, pairs in (
        ("emoji", "emoji", [s for s in emoji_settings if s.name in MAIN], FINAL),
        ("emoji, fold 0", "emoji", emoji_settings, FINAL[:1]),
        ("emoji, parts and additions", "emoji", emoji_settings, FEWEST),
        ("emoji-retrieval", RETRIEVAL, finalists(out, RETRIEVAL), FEWER),
    ):
        found = {
            s.name.removeprefix("retrieval "): [
                result for pair in pairs if (result := read(out, "final", s, *pair))
            ]
            for s in settings
        }
        if any(len(results) < len(pairs) for results in found.values()):
            raise typer.BadParameter(f"{title}: some runs are missing: run `final`")
        concepts = {fold: json.loads(concepts_path(out, fold).read_text()) for fold, _ in pairs}
        trained = trained_metric(recipes.load(recipes.locate(recipe)))
        summarized = emoji_study_tables.summarize(found, concepts, trained)
        # It ships in the wheel: no more digits than the tables need, which are made from it.
        methods = json.loads(json.dumps(summarized), parse_float=lambda x: round(float(x), 5))
        summary["tables"][title] = {"runs": pairs, "methods": methods}
        print(f"\n## {title}: (fold, seed) {pairs}\n")
        emoji_study_tables.show(methods)
        emoji_study_tables.show_effects(found, concepts)
        for metric in ("accuracy", "text_to_image_r1"):
            emoji_study_tables.show_moved(found, concepts, "unseen", metric)
    write_atomic(SUMMARY, json.dumps(summary) + "\n")
    print(f"\nWritten: {SUMMARY}")


@app.command()
def pictures(out: OutOption = OUT) -> None:
    """Draw the pictures of docs/ from the report, and from two trainings of fold 0."""
    for recipe in ("emoji", RETRIEVAL):
        summary = study.table(recipe)
        trained = trained_metric(recipes.load(recipes.locate(recipe)))
        x = ("in-distribution", trained)
        panels = [("unseen", "accuracy"), ("unseen", "text_to_image_r1")]
        drawn = study.curves(summary, x, panels, study.METHODS)
        names = [metric_of(metric).heading for _, metric in (x, *panels)]
        path = DOCS / f"{recipe}-curves.png"
        labels = [f"{name}: unseen styles" for name in names[1:]]
        plots.trade_off(drawn, f"{names[0]}: noto (trained style)", labels, path)
        print(path)
    draw_shift(out, DOCS / "emoji-shift.png")
    print(DOCS / "emoji-shift.png")


def draw_shift(out: Path, path: Path, rows: int = 5) -> None:
    """Test concepts of fold 0, drawn by lot, in every style, with three models' answers."""
    chosen = {setting.name: setting for setting in finalists(out, "emoji")}
    suite = load_suite("emoji-shifts").model_copy(update={"tasks": ["classification"]})
    opened = {name: tasks["classification"] for name, tasks in suite.open().items()}
    answers: dict[str, dict[str, Any]] = {}
    for name in ("full", "r-adapter"):
        overrides = ["data.fold=0", "seed=0", *chosen[name].overrides]
        recipe = recipes.load(recipes.locate("emoji"), overrides)
        with tempfile.TemporaryDirectory() as folder:
            trained = merging.open_trained(training.train(recipe, Path(folder)))
            alpha = 1.0 if name == "full" else alphas.choose_alpha(recipe, trained)["alpha"]
            label = "full" if name == "full" else f"R-Adapter, alpha {alpha:g}"
            for at, found in alphas.alpha_curve(suite, trained, [0.0, alpha]):
                answers["zero-shot" if at == 0 else label] = {
                    name: own.predictions for name, own in found.sets.items()
                }
    first = next(iter(opened.values()))
    drawn = sorted(np.random.default_rng(0).choice(len(first), rows, replace=False).tolist())
    shown = []
    for i in drawn:
        truth = first.class_names[first.labels[i]]
        concept = emoji.concepts()[first.groups[i]]["name"]
        # Every style has the same concepts in the same order.
        assert all(of.groups[i] == first.groups[i] for of in opened.values())
        cells = [
            [
                (first.class_names[k], k == first.labels[i])
                for k in (int(by_style[style][i]) for by_style in answers.values())
            ]
            for style in opened
        ]
        pictures = [of.read(i) for of in opened.values()]
        shown.append(emoji_shift_table.Row(f"{concept}\n({truth})", pictures, cells))
    roles = {dataset.name: dataset.role for dataset in suite.datasets}
    titles = [f"{s}\n({roles[s].replace('in-distribution', 'trained')})" for s in opened]
    emoji_shift_table.shift_table(shown, titles, list(answers), path)


if __name__ == "__main__":
    app()
