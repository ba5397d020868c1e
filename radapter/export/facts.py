"""What a run knows of its merged model that belongs in a bundle's manifest and model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from PIL.Image import Image

from radapter import bundle
from radapter.data import credits
from radapter.data.pairs import templates_of
from radapter.data.settings import Data
from radapter.errors import UsageError
from radapter.evaluation.suite import load_suite, shipped_suites
from radapter.export import card, golden
from radapter.export.sample import training_sample
from radapter.files import file_hash
from radapter.inference.prediction import read_class_names
from radapter.recipe import Recipe
from radapter.registry import folds
from radapter.run import Run

OWN_DATA = "that of your data"
FIGURES = ("value", "interval", "items", "chance")


def run_facts(run: Run, recipe: Recipe, merged: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for `export_bundle`: base model, recipe, method, alpha, and whatever the run has of
    curves over alpha and of suite results of these very weights, and the prompts of class names.

    Args:
        run: it is only read.
        recipe: the run's.
        merged: the facts of its merged model, from `merging.tuned`.
    """
    hub = hub_name(merged["base_model"])
    sections = [data for data in (recipe.data, recipe.unlabelled) if data is not None]
    licences = [data_licence(data) for data in sections]
    may_pass = all(data.may_be_passed_on for data in sections)
    built_in = merged["base_model"] == "pictogram-clip" and may_pass
    curves = alpha_curves(run)
    results = suite_results(run, merged["weights_hash"])
    return {
        "base_model": merged["base_model"],
        **({"base_model_hub": hub} if hub else {}),
        "base_hash": merged["base_hash"],
        "recipe": recipe.name,
        "recipe_hash": file_hash(run.path / "recipe.yaml"),
        "method": merged["method"]["name"],
        "alpha": merged["alpha"],
        **({} if folds(merged["method"]["name"]) else {"adapters": merged["method"]}),
        **({"rule": merged["rule"]} if "rule" in merged else {}),
        **({"mixture": merged["mixture"]} if "mixture" in merged else {}),
        **({"soup": soup} if (soup := run.soup()) else {}),
        **({"alpha_curves": curves} if curves else {}),
        **({"results": results} if results else {}),
        "data": [of for n, of in enumerate(licences) if of not in licences[:n]],
        "templates": recipe.data.prompts(),
        **({"license": "apache-2.0"} if built_in else {}),
    }


def golden_pictures(recipe: Recipe) -> tuple[list[Image] | None, str]:
    """Training pictures for the golden files, with the notice that goes along, if they may be
    passed on with the bundle: the built-in ones may. Others may be private or not to be
    redistributed, so for them it is None, and no notice."""
    if recipe.data.notices is None:
        return None, ""
    sample = training_sample(recipe, golden.PICTURES)
    files = {f"picture_{number}.png": key for number, key in enumerate(sample.keys)}
    return list(sample.pictures), credits.notice(recipe.data.notices, files)


def refresh(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write the card and the manifest of a whole bundle anew if the run knows more than they say.

    Returns:
        The manifest; None if nothing has changed.
    """
    manifest = bundle.read_manifest(folder)
    portable = json.loads(json.dumps(card.portable(facts)))  # as it comes back from the file
    optional = [
        "alpha_curves", "results", "data", "templates", "base_model_hub", "license", "adapters",
    ]  # fmt: skip
    if all(manifest.get(key) == portable.get(key) for key in optional):
        return None
    kept = {k: v for k, v in manifest.items() if k not in ("schema_version", "files", *optional)}
    with bundle.changing(folder) as temporary:
        return card.finish(temporary, {**portable, **kept})


def hub_name(model: str) -> str | None:
    """The Hugging Face repository of open_clip's NAME:TAG, such as `timm/vit_...`; None if none."""
    if model.startswith("hf-hub:"):
        return model.removeprefix("hf-hub:")
    architecture, _, tag = model.partition(":")
    known = (open_clip.get_pretrained_cfg(architecture, tag) or {}) if tag else {}
    return str(known.get("hf_hub") or "").strip("/") or None


def classes_of(name: str, recipe: Recipe) -> dict[str, Any]:
    """The classes of a suite, or of a file with one name a line, with their prompts.

    Raises:
        UsageError: the suite classifies nothing, or not always the same classes.
        BrokenInput: the file or the suite's data is not there.
    """
    if name.endswith(".txt"):
        names, templates = read_class_names(name), templates_of(recipe.data.prompts())
    else:
        suite = load_suite(name).for_recipe(recipe)
        opened = [tasks.get("classification") for tasks in suite.open().values()]
        lists = {tuple(dict.fromkeys(data.class_names)) for data in opened if data}
        if len(lists) != 1:
            what = "classes that differ between its data sets" if lists else "no classes"
            raise UsageError(
                f"Suite {suite.name} has {what}: name those to choose from, one a line in a file, "
                "by --classifier names.txt"
            )
        names, templates = list(lists.pop()), templates_of(suite.prompts(suite.datasets[0]))
    prompts = [[template.replace("{}", name) for template in templates] for name in names]
    return {"names": names, "prompts": prompts}


# ---------------------------------------------------------------- what was measured


def alpha_curves(run: Run) -> list[dict[str, Any]]:
    """The curves over alpha that the run has: `merge --alpha auto` on held-out data, and
    `eval --alphas` on suites, by role; of the adapter that was merged. Scores from 0 to 1."""
    curves = []
    auto = _read(run.path / "merged" / "alpha-auto.json")
    if auto and auto.get("adapter", "last") == run.which():
        points = [{"alpha": p["alpha"], "held-out": p["score"]} for p in auto["curve"]]
        curves.append({"on": "held-out", "metric": auto["metric"], "points": points})
    for path in sorted(run.evaluations.glob("*-alphas.json")):
        result = _read(path)
        if result and result.get("adapter", "last") == run.which():
            metric = result["trained_metric"]
            points = [
                {"alpha": point["alpha"]}
                | {
                    r: means[metric]["value"]
                    for r, means in point["roles"].items()
                    if metric in means
                }
                for point in result["points"]
            ]
            curves.append({"on": result["suite"], "metric": metric, "points": points})
    return curves


def suite_results(run: Run, weights_hash: str) -> list[dict[str, Any]]:
    """The scores of these weights that the run has, by suite, model, data set and metric.

    Where a suite was scored with one runtime alone and with both, both count.
    """
    found: dict[str, dict[str, Any]] = {}
    paths = sorted(run.evaluations.glob("*.json"), key=lambda path: (len(path.name), path.name))
    for path in paths:
        result = _read(path)
        if not result or result.get("weights_hash") != weights_hash or "models" not in result:
            continue
        own = {
            "suite": result["suite"],
            "models": {label: _scores(model) for label, model in result["models"].items()},
        }
        found.setdefault(result["suite"], own)
    return [found[name] for name in sorted(found)]


def _scores(model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"role": dataset["role"]}
        | ({"partial": dataset["partial"]} if dataset.get("partial") else {})
        | {
            metric: {key: scored[key] for key in FIGURES if key in scored}
            for metric, scored in dataset.items()
            if isinstance(scored, dict) and "interval" in scored
        }
        for name, dataset in model["datasets"].items()
    }


def _read(path: Path) -> dict[str, Any] | None:
    """A result; None if it is not there or damaged: a card with less in it does no harm."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


# ---------------------------------------------------------------- licences


def data_licence(data: Data) -> dict[str, str]:
    """Training data by name, with its licence as the suites that ship with radapter state it.

    Returns:
        `name`, `licence` and, if it is published, `where`.
    """
    if data.licence:
        return dict(data.licence)
    name = data.published_as()
    if name is None:
        return {"name": f"your own ({data.source})", "licence": OWN_DATA}
    for suite in shipped_suites():
        for dataset in load_suite(suite).datasets:
            if dataset.published and dataset.name == name:
                facts = dataset.published
                return {"name": name, "licence": facts.licence, "where": facts.where}
    return {"name": name, "licence": OWN_DATA}
