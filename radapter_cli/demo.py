"""radapter demo: the main job end to end, on the built-in model and pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from radapter_cli import console
from radapter_cli.eval import RuntimeChoice, eval_command
from radapter_cli.export import export
from radapter_cli.merge import merge
from radapter_cli.train import train


def demo(as_json: console.JsonOption = False) -> None:
    """Train, merge, export and evaluate on the built-in model and emoji: under three minutes.

    Needs no GPU, no network and no data. Leaves its run in ./runs.
    """
    from radapter.run import find

    console.out.quiet = as_json
    start = time.monotonic()
    times: list[tuple[str, float]] = []

    def step(command: str, call: Callable[[], None]) -> None:
        console.err.print(f"\n[bold cyan]$ {command}[/]")
        before = time.monotonic()
        call()
        times.append((command, time.monotonic() - before))

    step("radapter train emoji", lambda: train("emoji"))
    trained = find()
    run = str(trained.path)
    step("radapter merge", lambda: merge(run=run))
    step("radapter export", lambda: export(run=run))
    step("radapter eval --runtime all", lambda: eval_command(run=run, runtime=RuntimeChoice.all))

    (evaluated,) = trained.evaluations.glob("*.json")
    result = json.loads(evaluated.read_text())
    if as_json:
        console.print_json({"run": run, "seconds": dict(times), "result": result})
        return
    _summarize(result)
    console.result("\nThe four commands in sequence:")
    for command, duration in [*times, ("in all", time.monotonic() - start)]:
        console.result(f"  {console.seconds(duration):>12}  {command}")
    console.result(f"The plain checkpoint and the bundle to deploy are in {run}.")
    console.next_command("radapter recipes copy own-data   (the same on your own pictures)")


def _summarize(result: dict[str, Any]) -> None:
    """What was gained, what was lost, and whether the engine agrees."""
    before, after = result["models"]["zero-shot"]["roles"], result["models"]["onnx"]["roles"]
    lines = {
        "trained task, trained style": ("in-distribution", "accuracy"),
        "trained task, unseen styles": ("unseen", "accuracy"),
        "untrained task (caption to picture), trained style": (
            "in-distribution",
            "text_to_image_r1",
        ),
        "untrained task (caption to picture), unseen styles": ("unseen", "text_to_image_r1"),
    }
    console.result("\nFrom the zero-shot model to the exported engine, in %:")
    for text, (role, metric) in lines.items():
        old, new = (100 * roles[role][metric]["value"] for roles in (before, after))
        console.result(f"  {text:51} {old:5.1f} -> {new:5.1f}")
    worst = result["parity"]["cosine"]["worst"]
    console.result(f"The engine agrees with PyTorch: worst cosine 1 - {max(0.0, 1 - worst):.0e}.")
