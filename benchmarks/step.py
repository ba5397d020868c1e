"""What a training step and an evaluation cost, as ratios from one run.

    python benchmarks/step.py [--model emoji-clip --model ViT-B-32:random] [--batch 32]

Each training case is a process of its own, since peak memory is a process's; the cases of a model
take turns, and the shortest of all their steps counts, so that a busy moment falls on all alike.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from radapter import models
from radapter.methods import METHODS
from radapter.recipe import Objective, Optimisation
from radapter.training import gradients
from radapter.training.optimisation import adamw

CASES = {
    "full fine-tuning, texts of full length": ("full", "full length"),
    "full fine-tuning": ("full", "short"),
    "R-Adapter, texts of full length": ("r-adapter", "full length"),
    "R-Adapter": ("r-adapter", "short"),
    "LoRA, rank 8": ("lora", "short"),
}
TEXTS = ["a photo of a cat.", "two dogs on a red sofa", "the sea at night", "a small green bird"]
app = typer.Typer(add_completion=False)


@app.command()
def one(model: str, method: str, texts: str, batch: int, steps: int) -> None:
    """Seconds of the shortest step and peak memory of one case, as JSON."""
    loaded = models.load(model)
    attached = METHODS[method].attach(loaded.model)
    trained = list(attached.parameters())
    optimizer = adamw(trained, Optimisation())
    if texts == "full length":
        gradients.shorten = lambda model, tokens: tokens
    size = loaded.config["preprocess_cfg"]["size"]
    height, width = (size, size) if isinstance(size, int) else size
    content = {
        "images": torch.randn(batch, 3, height, width),
        "tokens": loaded.tokenizer([f"{TEXTS[i % 4]} {i}" for i in range(batch)]),
        "text_of": torch.arange(batch),
        "groups": torch.arange(batch),
        "own": torch.zeros(batch, dtype=torch.bool),
    }
    loaded.model.train()
    seconds = []
    for _ in range(steps + 1):  # the first one allocates
        start = time.perf_counter()
        optimizer.zero_grad()
        gradients.gradients(loaded.model, content, Objective(), device=torch.device("cpu"))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        attached.update_average()
        seconds.append(time.perf_counter() - start)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": min(seconds[1:]), "peak": peak}))


def training(model: str, batch: int, steps: int, rounds: int) -> None:
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, (method, texts) in CASES.items():
            command = [
                sys.executable,
                __file__,
                "one",
                model,
                method,
                texts,
                str(batch),
                str(steps),
            ]
            result = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            known = found.setdefault(name, result)
            known["seconds"] = min(known["seconds"], result["seconds"])
    reference = found["full fine-tuning"]
    print(f"\n{model}, batch {batch}: a training step (ratios to full fine-tuning, short texts)\n")
    print("| | time | | peak memory | |\n|---|---|---|---|---|")
    for name, result in found.items():
        ratios = [result[key] / reference[key] for key in ("seconds", "peak")]
        print(
            f"| {name} | {1000 * result['seconds']:.0f} ms | {ratios[0]:.2f} | "
            f"{result['peak'] / 1e6:.0f} MB | {ratios[1]:.2f} |"
        )


def evaluation(model: str, batch: int, rounds: int) -> None:
    """ONNX against PyTorch, in turns, the shortest time of each."""
    from radapter.export import export_bundle
    from radapter.runtimes.onnx import OnnxRuntime
    from radapter.runtimes.pytorch import PyTorchRuntime

    loaded = models.load(model)
    size = loaded.config["preprocess_cfg"]["size"]
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.randn(batch, 3, height, width)
    full = loaded.tokenizer([f"{TEXTS[i % 4]} {i}" for i in range(batch)])
    short = models.shorten(loaded.model, full)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        facts = {"base_model": model, "base_hash": "", "recipe": "", "recipe_hash": ""}
        export_bundle(loaded, bundle, facts=facts | {"method": "", "alpha": 0.0})
        engines = {"PyTorch": PyTorchRuntime(loaded), "ONNX": OnnxRuntime(bundle)}
        times: dict[tuple[str, str], float] = {}
        for _ in range(rounds + 1):
            for engine, runtime in engines.items():
                for what, call, inputs in (
                    ("pictures", runtime.encode_image, images),
                    ("texts of full length", runtime.encode_text, full),
                    ("short texts", runtime.encode_text, short),
                ):
                    start = time.perf_counter()
                    call(inputs)
                    key, spent = (what, engine), time.perf_counter() - start
                    times[key] = min(times.get(key, spent), spent)
    print(f"\n{model}, batch {batch}: encoding\n\n| | PyTorch | ONNX | ratio |\n|---|---|---|---|")
    for what in ("pictures", "texts of full length", "short texts"):
        torch_time, onnx_time = times[what, "PyTorch"], times[what, "ONNX"]
        print(
            f"| {what} | {1000 * torch_time:.1f} ms | {1000 * onnx_time:.1f} ms | "
            f"{onnx_time / torch_time:.2f} |"
        )


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    model: Annotated[list[str], typer.Option(help="May be given several times.")] = [  # noqa: B006
        "emoji-clip",
        "ViT-B-32:random",
    ],
    batch: int = 32,
    steps: int = 5,
    rounds: int = 2,
) -> None:
    """Measure every case for every model and print ratios."""
    if context.invoked_subcommand:
        return
    for name in model:
        training(name, batch, steps, rounds)
    # Last, since a child starts with the peak memory of its parent, which this raises.
    for name in model:
        evaluation(name, batch, 5 * rounds)


if __name__ == "__main__":
    app()
