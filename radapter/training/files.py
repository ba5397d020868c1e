"""What training leaves in a run folder beside checkpoints and metrics."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from safetensors.torch import save as to_safetensors

from radapter import run as runs
from radapter.training.preparing import Parts


def write_adapter(run: runs.Run, parts: Parts, steps: int) -> None:
    """adapter.safetensors; no time and no run id in it, so one seed gives one file."""
    facts = {
        "schema_version": 1,
        "method": parts.recipe.method.model_dump(mode="json"),
        "base_model": parts.recipe.model,
        "base_seed": parts.recipe.seed if parts.recipe.model.endswith(":random") else 0,
        "base_hash": parts.base_hash,
        "steps": steps,
        "trained_parameters": sum(p.numel() for p in parts.trained),
        "start_share": parts.attached.start_share(),
    }
    if parts.pairs.classify:
        # Before the adapter: a run that has finished training has what `export` needs.
        names = parts.pairs.dataset.class_names
        prompts = [[t.replace("{}", name) for t in parts.pairs.templates] for name in names]
        classes = {"schema_version": 1, "names": names, "prompts": prompts}
        runs.write_atomic(run.path / "classes.json", json.dumps(classes, indent=1) + "\n")
    # One metadata entry: the order of several is not fixed in the file.
    metadata = {"radapter": json.dumps(facts, sort_keys=True)}
    runs.write_atomic(run.adapter, to_safetensors(parts.attached.stored(), metadata=metadata))


def write_environment(run: runs.Run) -> None:
    packages = {}
    for name in ("radapter", "torch", "torchvision", "open_clip_torch", "numpy", "safetensors"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed as a package"
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": packages,
    }
    runs.write_atomic(run.path / "environment.json", json.dumps(facts, indent=2) + "\n")
