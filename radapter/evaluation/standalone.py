"""Evaluate a model that belongs to no run: `NAME:TAG`, a folder in open_clip's format, a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from radapter import bundle, models
from radapter.evaluation.evaluate import Evaluation, Prepares, evaluate, protocol
from radapter.evaluation.suite import Suite
from radapter.run import write_atomic
from radapter.runtimes import Runtime

FOLDER = Path("eval")
PACKAGES = ("radapter", "torch", "torchvision", "open_clip_torch", "onnxruntime", "Pillow")


@dataclass(frozen=True)
class Candidate:
    """A model ready to be evaluated."""

    name: str
    """As it was asked for"""
    runtime: Runtime
    inputs: Prepares


def open_model(name: str) -> Candidate:
    """A model by name, folder or bundle; a bundle runs in onnxruntime, all else in PyTorch.

    Raises:
        UsageError, BrokenInput, MissingDependency: see `models.load` and `OnnxRuntime`.
    """
    if (Path(name) / bundle.MANIFEST).is_file():
        from radapter.runtimes.inputs import BundleInputs
        from radapter.runtimes.onnx import OnnxRuntime

        return Candidate(name, OnnxRuntime(name), BundleInputs(name))
    from radapter.runtimes.pytorch import PyTorchRuntime

    loaded = models.load(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Candidate(name, PyTorchRuntime(loaded, device), loaded)


def evaluate_model(
    suite: Suite,
    candidate: Candidate,
    *,
    out: Path | None = None,
    opened: Any = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Score one suite and write the result.

    Args:
        suite: what to score on.
        candidate: from `open_model`.
        out: the result's file; None: `eval/SUITE-MODEL.json` in the working folder.
        opened: what `suite.open()` gave, if it is open already.
        on_progress: called with pictures done and pictures in all.

    Returns:
        What was written, with `file`.
    """
    evaluated = evaluate(
        suite, candidate.runtime, candidate.inputs, opened=opened, on_progress=on_progress
    )
    label = Path(candidate.name).resolve().name
    result = {
        "schema_version": 1,
        "suite": suite.name,
        "model": candidate.name,
        "weights_hash": candidate.runtime.provenance["weights_hash"],
        "versions": versions(),
        "protocol": protocol(suite, candidate.inputs),
        "models": {label: evaluated.result() | with_anchors(evaluated, candidate.name)},
        "parity": None,
    }
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", label)
    path = out or FOLDER / f"{suite.name}-{slug}.json"
    write_atomic(path, json.dumps(result, indent=2, default=list) + "\n")
    return result | {"file": str(path)}


def with_anchors(evaluated: Evaluation, model: str) -> dict[str, Any]:
    """`anchors`: published accuracies of these very weights beside ours, of data sets that are
    whole; nothing for a model without any. Shares from 0 to 1."""
    found = {
        dataset: {
            "published": value / 100,
            "difference": evaluated.value(dataset, "accuracy") - value / 100,
            "tolerance": anchors.tolerance / 100,
            "source": anchors.source,
        }
        for dataset, value, anchors in evaluated.suite.anchors_for(model)
        if not evaluated.is_partial(dataset)
    }
    return {"anchors": found} if found else {}


def versions() -> dict[str, str]:
    """Of the packages that a score could depend on; what is not installed is left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
