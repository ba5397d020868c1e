"""The estimate that `train --dry-run` prints, against the peak that a process really takes.

    python benchmarks/memory.py table [--model ViT-B-32:random] [--batch 32]

Each case is a process of its own: two steps on noise, on a CPU. What is measured is the highest
resident memory beyond that before the model was loaded, with glibc told to give freed blocks back
(MALLOC_MMAP_THRESHOLD_); without that it keeps gaps, up to 1.4 times as much with middling blocks.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import typer

app = typer.Typer(add_completion=False)
CASES: dict[str, list[str]] = {
    "full fine-tuning": ["method={name: full}"],
    "R-Adapter, full rank": [],
    "R-Adapter, rank 64": ["method.rank=64"],
    "R-Adapter as released": ["method.drop_unit=position", "method.learn_scale=true"],
    "LoRA, rank 8": ["method={name: lora}"],
    "UniAdapter, rank 128": ["method={name: uniadapter, norm: own}"],
    "Multiway-Adapter, rank 64": ["method={name: multiway}"],
    "full fine-tuning, bf16": ["method={name: full}", "precision=bf16"],
    "R-Adapter, bf16": ["precision=bf16"],
    "R-Adapter, micro batches of 8": ["optimisation.micro_batch=8"],
    "R-Adapter, activation checkpointing": ["activation_checkpointing=true"],
}


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


def _steps(model: str, batch: int, overrides: list[str]) -> int:
    """Two steps; the estimate of one, in bytes."""
    from radapter import models
    from radapter import recipe as recipes
    from radapter.objectives import contrastive
    from radapter.optimizers import adamw
    from radapter.registry import METHODS, load
    from radapter.training import execution
    from radapter.training.estimate import Sizes, step_memory
    from radapter.training.feeding import Pixels
    from radapter.training.gradients import gradients
    from radapter.training.step import PRECISIONS, training_mode

    text = "{name: x, model: x, method: {name: r-adapter}, data: {source: emoji, task: captions}}"
    recipe = recipes.parse(text, "recipe", [f"optimisation.batch_size={batch}", *overrides])
    loaded = models.load(model)
    torch.manual_seed(0)
    method = load(METHODS, recipe.method.name)
    attached = method.attach(loaded.model, **recipe.method.arguments())
    execution.set_up(loaded.model, recipe)
    training_mode(loaded.model)
    trained = list(attached.parameters())
    optimizer = adamw.optimizer(attached, recipe.optimisation.lr)
    tokens = loaded.tokenizer([f"a small green bird on a tree, number {i}" for i in range(batch)])
    length, micro = models.shorten(loaded.model, tokens).shape[1], recipe.optimisation.micro_batch
    sizes = Sizes(batch, batch, batch, length, micro)
    estimate = step_memory(loaded.model, attached, recipe, sizes).total
    height, width = models.image_size(loaded.model)
    device = torch.device("cpu")
    for _ in range(2):
        optimizer.zero_grad()
        content: dict[str, Any] = {
            "images": torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8),
            "tokens": tokens,
            "text_of": torch.arange(batch),
            "groups": torch.arange(batch),
            "own": torch.zeros(batch, dtype=torch.bool),
        }
        gradients(
            loaded.model,
            content,
            [contrastive.term(None)],
            device=device,
            precision=PRECISIONS[recipe.precision],
            micro_batch=micro,
            pixels=Pixels([0.5] * 3, [0.25] * 3, device),
        )
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        attached.update_average()
    return estimate


@app.command()
def one(model: str, batch: int, overrides: str) -> None:
    """The estimate of one case and what the process took, in bytes, as JSON."""
    torch.set_num_threads(1)
    _steps("pictogram-clip", 32, json.loads(overrides))  # what libraries take once is no step's
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    before = _resident("VmRSS")
    estimate = _steps(model, batch, json.loads(overrides))
    print(json.dumps({"estimate": estimate, "measured": _resident("VmHWM") - before}))


@app.command()
def table(model: str = "ViT-B-32:random", batch: int = 32) -> None:
    """Every case of a model."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}
    print(f"{model}, batch {batch}\n\n| | measured | estimate | ratio |\n| --- | --- | --- | --- |")
    for name, overrides in CASES.items():
        command = [sys.executable, __file__, "one", model, str(batch), json.dumps(overrides)]
        with tempfile.TemporaryDirectory() as folder:
            out = subprocess.check_output(command, text=True, env=environment, cwd=folder)
        found = json.loads(out.splitlines()[-1])
        estimate, measured = found["estimate"], found["measured"]
        print(
            f"| {name} | {measured / 1e6:,.0f} MB | {estimate / 1e6:,.0f} MB | "
            f"{estimate / measured:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    app()
