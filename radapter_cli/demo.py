"""radapter demo: the main job end to end, on the built-in model and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable

from radapter_cli import console
from radapter_cli.eval import RuntimeChoice, eval_command
from radapter_cli.export import export
from radapter_cli.merge import merge
from radapter_cli.train import train


def demo() -> None:
    """Train, merge, export and evaluate on the built-in model and emoji: under three minutes.

    Needs no GPU, no network and no data. Leaves its run in ./runs.
    """
    from radapter.run import find

    start = time.monotonic()
    times: list[tuple[str, float]] = []

    def step(command: str, call: Callable[[], None]) -> None:
        console.err.print(f"\n[bold cyan]$ {command}[/]")
        before = time.monotonic()
        call()
        times.append((command, time.monotonic() - before))

    step("radapter train emoji", lambda: train("emoji"))
    run = str(find().path)
    step("radapter merge", lambda: merge(run=run))
    step("radapter export", lambda: export(run=run))
    step("radapter eval --runtime all", lambda: eval_command(run=run, runtime=RuntimeChoice.all))

    console.result("\nThe four commands in sequence:")
    for command, duration in [*times, ("in all", time.monotonic() - start)]:
        console.result(f"  {console.seconds(duration):>12}  {command}")
    console.result(f"The plain checkpoint and the bundle to deploy are in {run}.")
    console.next_command("radapter recipes copy own-data   (the same on your own pictures)")
