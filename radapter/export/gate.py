"""The gate of an export: the files in the bundle against PyTorch, on a sample of the suites."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from radapter import bundle
from radapter.data import Dataset
from radapter.data.pairs import templates_of
from radapter.errors import BrokenInput, GateFailed, UsageError
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.of_run import engines, verdicts
from radapter.evaluation.result import TextKey
from radapter.evaluation.scores import Task, task_for
from radapter.evaluation.suite import Suite, held_out_suite, load_suite
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.export.further_files import compare_files, scored_pictures
from radapter.heads.head import Head
from radapter.models import LoadedModel, shorten
from radapter.recipe import Recipe
from radapter.runtimes.engines import runnable
from radapter.runtimes.opened import BundleTokenizer, from_loaded, with_runtime
from radapter.runtimes.pytorch import PyTorchRuntime

PROMPTS = 4
"""Prompts of a class, at most"""
Opened = dict[str, dict[Task, Dataset]]
Gate = Callable[[Path], list[dict[str, Any]]]
"""Folder of a bundle -> what was compared, by suite; GateFailed if it is out of tolerance"""


def parity_gate(
    recipe: Recipe,
    merged: LoadedModel,
    tolerances: Sequence[str] = (),
    head: Head | None = None,
    device: str = "cpu",
) -> tuple[Gate, dict[str, str]]:
    """A gate on the recipe's suites: `export.verify` pictures of each data set, a few prompts.

    Suites whose data is not there are left out; if none is left, the gate is on held-out data of
    the training distribution, or else on training data: parity chooses nothing, any data will do.

    Args:
        recipe: of the run.
        merged: the model that is exported.
        tolerances: changes, see `evaluation.parity.tolerance_of`.
        head: of the classifier file.
        device: of PyTorch, `cpu`, `cuda` or `auto`; what is compared says which it was.

    Returns:
        The gate, and the suites that were left out, with the reason.

    Raises:
        BrokenInput: there is no data at all.
    """
    samples, left_out = _samples(recipe)
    gate = functools.partial(run_gate, merged, samples, tolerances, head, device=device)
    return gate, left_out


def run_gate(
    merged: LoadedModel,
    samples: Sequence[tuple[Suite, Opened]],
    tolerances: Sequence[str],
    head: Head | None,
    folder: Path,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """PyTorch in fp32, in fp16 where the bundle has that, every engine that runs here, and files
    from bytes and classifiers.

    Raises:
        GateFailed: one of them is out of tolerance; the details have everything that was compared.
    """
    compared: list[dict[str, Any]] = []
    _check_scales(folder, merged)
    names, _ = runnable(folder)
    deployed = engines(folder, names, merged)
    if bundle.in_precision(bundle.VISION, bundle.QDQ) in bundle.read_manifest(folder)["files"]:
        # What TensorRT's int8 engines are built from; onnxruntime runs it too.
        deployed += engines(folder, ["onnx"], merged, precisions=[bundle.QDQ])
    reference = PyTorchRuntime(merged, device)
    candidates = [with_runtime(reference, merged, name="torch fp32")]
    if any(model.runtime.precision == "fp16" for model in deployed):
        candidates.append(from_loaded(merged, "torch fp16", device, "fp16"))
    for suite, opened in samples:
        done = {
            model.name: evaluate(suite, model, opened=opened) for model in (*candidates, *deployed)
        }
        scored = scored_pictures(opened, done["torch fp32"].sets)
        compared.append(
            {
                "suite": suite.name,
                "pictures": sum(len(dataset) for _, dataset in scored),
                "prompts_per_class": PROMPTS,
                "reference": f"PyTorch on {reference.device}",
                "tokens": compare_tokens(folder, merged, done["torch fp32"].text_features),
                "verdicts": verdicts(done, "torch fp32", tolerances),
                "files": compare_files(folder, merged, scored, head, tolerances, reference),
            }
        )
    failures = [
        f"{row.get('label') or row['file']} on {found['suite']}: {'; '.join(row['failures'])}"
        for found in compared
        for row in (*found["verdicts"], *found["files"])
        if not row["passed"]
    ]
    if failures:
        raise GateFailed(
            "The exported files do not give PyTorch's answers:\n"
            + "\n".join(failures)
            + "\nNo bundle was written. --tolerance allows more, --no-verify skips this.",
            details={"parity": compared},
        )
    return compared


def _check_scales(folder: Path, merged: LoadedModel) -> None:
    """The logit scale stands in several files, for several readers: in each it is the model's."""
    scale = merged.logit_scale
    stated = {bundle.MANIFEST: bundle.read_manifest(folder)["logit_scale"]}
    stated["config.json"] = json.loads((folder / "config.json").read_text("utf-8"))["logit_scale"]
    if classes := bundle.read_classes(folder):
        stated[bundle.CLASSES] = classes[2]
    for file, value in stated.items():
        if not math.isclose(value, scale, rel_tol=1e-5):
            raise GateFailed(f"{file} says that the logit scale is {value:g}; it is {scale:g}.")


def compare_tokens(folder: Path, merged: LoadedModel, texts: Iterable[TextKey]) -> dict[str, Any]:
    """The bundle's tokenizer beside the model's own on a suite's captions and class names.

    It is known to differ on texts that open_clip repairs first, so this is said and decides
    nothing: `texts`, how many there are, `different`, how many get other ids, and `examples`.
    """
    theirs = BundleTokenizer(folder, bundle.read_manifest(folder))
    different, number = [], 0
    for _, text, _ in texts:
        number += 1
        ours = shorten(merged.model, merged.tokenizer([text]))[0].tolist()
        if theirs([text])[0].tolist() != ours:
            different.append(text)
    return {"texts": number, "different": len(different), "examples": different[:5]}


def _samples(recipe: Recipe) -> tuple[list[tuple[Suite, Opened]], dict[str, str]]:
    samples, left_out = [], {}
    for name in recipe.suites:
        # The file that matches is compared by itself: for a suite it would run very often.
        suite = load_suite(name).for_recipe(recipe).without_reranking()
        try:
            suite = _few_prompts(suite, recipe.seed)
            samples.append((suite, _sampled(suite.open(), recipe.export.verify, recipe.seed)))
        except BrokenInput as error:
            left_out[suite.name] = str(error).splitlines()[-1]
    if not samples:
        suite = _own_suite(recipe)
        try:
            suite = _few_prompts(suite, recipe.seed)
            samples.append((suite, _sampled(suite.open(), recipe.export.verify, recipe.seed)))
        except BrokenInput as error:
            raise BrokenInput(
                f"{error}\nThe exported files cannot be compared without that data. "
                "--no-verify skips the comparison, and the manifest says so."
            ) from None
    return samples, left_out


def _own_suite(recipe: Recipe) -> Suite:
    try:
        return held_out_suite(recipe)
    except UsageError:  # it holds nothing out
        data = recipe.data
        described = SuiteDataset(name="training", role="in-distribution", data=data)
        tasks, prompts = [task_for(data.task)], data.prompts()
        return Suite(name="training", templates=prompts, tasks=tasks, datasets=[described])


def _few_prompts(suite: Suite, seed: int) -> Suite:
    """The suite with a few of its prompts, drawn: with ImageNet's eighty, a thousand classes would
    be most of the work."""

    def few(templates: Sequence[str]) -> list[str]:
        order = torch.randperm(len(templates), generator=torch.Generator().manual_seed(seed))
        return [templates[i] for i in sorted(order[:PROMPTS].tolist())]

    datasets = [
        dataset.model_copy(update={"templates": few(templates_of(suite.prompts(dataset)))})
        for dataset in suite.datasets
    ]
    return suite.model_copy(update={"datasets": datasets})


def _together(dataset: Dataset) -> list[tuple[str, ...]]:
    """The keys of pictures that are of no use without each other."""
    if not dataset.edits:
        return [(key,) for key in dataset.keys]
    own = ((edit.reference, *edit.targets[:1]) for edit in dataset.edits if not edit.chooses)
    return [tuple(dataset.keys[i] for i in places) for places in own]


def _sampled(opened: Opened, size: int, seed: int) -> Opened:
    """The same pictures of a data set for every task, drawn by the recipe's seed; of edits with
    their references and right pictures."""
    sampled: Opened = {}
    for name, tasks in opened.items():
        groups = sorted({group for dataset in tasks.values() for group in _together(dataset)})
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(groups), generator=generator).tolist()
        keys = dict.fromkeys(key for i in order for key in groups[i])
        chosen = set(itertools.islice(keys, size))
        sampled[name] = {
            task: dataset.select([i for i, key in enumerate(dataset.keys) if key in chosen])
            for task, dataset in tasks.items()
        }
    return sampled
