"""The gate of an export: the files in the bundle against PyTorch, on a sample of the suites."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radapter import bundle
from radapter.data import Dataset
from radapter.errors import BrokenInput, GateFailed, UsageError
from radapter.evaluation import Suite, evaluate, held_out_suite, load_suite
from radapter.evaluation.suite import SuiteDataset, Task
from radapter.export.picture_files import compare_files, suite_pictures
from radapter.models import LoadedModel
from radapter.recipe import Recipe
from radapter.runtimes.opening import runnable
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.scoring import engines, verdicts

Opened = dict[str, dict[Task, Dataset]]
Gate = Callable[[Path], list[dict[str, Any]]]
"""Folder of a bundle -> what was compared, by suite; GateFailed if it is out of tolerance"""


def parity_gate(
    recipe: Recipe,
    merged: LoadedModel,
    tolerances: Sequence[str] = (),
    class_features: Tensor | None = None,
) -> tuple[Gate, list[str]]:
    """A gate on the recipe's suites, `export.verify` pictures of each data set.

    Suites whose data is not there are left out; if none is left, the gate is on held-out data of
    the training distribution, or else on training data: parity chooses nothing, any data will do.

    Args:
        recipe: of the run.
        merged: the model that is exported.
        tolerances: changes, see `evaluation.parity.tolerance_of`.
        class_features: of the classes that a classifier file tells apart, [classes, dim].

    Returns:
        The gate, and a line for each suite that was left out.

    Raises:
        BrokenInput: there is no data at all.
    """
    samples, notes = _samples(recipe)
    return functools.partial(run_gate, merged, samples, tolerances, class_features), notes


def run_gate(
    merged: LoadedModel,
    samples: Sequence[tuple[Suite, Opened]],
    tolerances: Sequence[str],
    class_features: Tensor | None,
    folder: Path,
) -> list[dict[str, Any]]:
    """PyTorch in fp32, in fp16 where the bundle has that, every engine that runs here, and files
    from bytes and classifiers.

    Raises:
        GateFailed: one of them is out of tolerance; the details have everything that was compared.
    """
    compared = []
    names, _ = runnable(folder)
    deployed = engines(folder, names, merged)
    if bundle.in_precision(bundle.VISION, bundle.QDQ) in bundle.read_manifest(folder)["files"]:
        # What TensorRT's int8 engines are built from; onnxruntime runs it too.
        deployed += engines(folder, ["onnx"], merged, precisions=[bundle.QDQ])
    candidates = [("torch fp32", PyTorchRuntime(merged), merged)]
    if any(runtime.precision == "fp16" for _, runtime, _ in deployed):
        candidates.append(("torch fp16", PyTorchRuntime(merged, precision="fp16"), merged))
    for suite, opened in samples:
        done = {
            label: evaluate(suite, runtime, inputs, opened=opened)
            for label, runtime, inputs in [*candidates, *deployed]
        }
        pictures = sum(facts["pictures"] for facts in done["torch fp32"].sets.values())
        rows = verdicts(done, "torch fp32", tolerances)
        files = compare_files(folder, merged, suite_pictures(opened), class_features, tolerances)
        compared.append(
            {"suite": suite.name, "pictures": pictures, "verdicts": rows, "files": files}
        )
    failures = [
        f"{row.get('label') or row['file']} on {found['suite']}: {'; '.join(row['failures'])}"
        for found in compared
        for row in (*found["verdicts"], *found["files"])
        if not row["passed"]
    ]
    if failures:
        raise GateFailed(
            "What was exported does not give PyTorch's answers:\n"
            + "\n".join(failures)
            + "\nIt was not kept. --tolerance allows more, --no-verify exports unseen.",
            details={"parity": compared},
        )
    return compared


def _samples(recipe: Recipe) -> tuple[list[tuple[Suite, Opened]], list[str]]:
    samples, notes = [], []
    for name in recipe.suites:
        suite = load_suite(name).for_recipe(recipe)
        try:
            samples.append((suite, _sampled(suite.open(), recipe.export.verify, recipe.seed)))
        except BrokenInput as error:
            notes.append(f"not compared on {suite.name}: {str(error).splitlines()[-1]}")
    if not samples:
        suite = _own_suite(recipe)
        try:
            samples.append((suite, _sampled(suite.open(), recipe.export.verify, recipe.seed)))
        except BrokenInput as error:
            raise BrokenInput(
                f"{error}\nThere is no data to compare the exported files on. --no-verify exports "
                "without, and the manifest says so."
            ) from None
    return samples, notes


def _own_suite(recipe: Recipe) -> Suite:
    try:
        return held_out_suite(recipe)
    except UsageError:  # it holds nothing out
        data = recipe.data
        task: Task = "classification" if data.task == "classification" else "retrieval"
        described = SuiteDataset(name="training", role="in-distribution", data=data)
        return Suite(name="training", templates=data.prompts(), tasks=[task], datasets=[described])


def _sampled(opened: Opened, size: int, seed: int) -> Opened:
    """The same pictures of a data set for every task, drawn by the recipe's seed."""
    sampled: Opened = {}
    for name, tasks in opened.items():
        keys = sorted({key for dataset in tasks.values() for key in dataset.keys})
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = {keys[i] for i in order[:size]}
        sampled[name] = {
            task: dataset.select([i for i, key in enumerate(dataset.keys) if key in chosen])
            for task, dataset in tasks.items()
        }
    return sampled
