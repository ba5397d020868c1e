"""radapter train: adapters into a run folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import UsageError
from radapter_cli import console, live

if TYPE_CHECKING:
    from radapter.recipe import Recipe
    from radapter.run import Run
    from radapter.training import Fit, Plan

AT_ONCE = "; press again to stop at once"


def complete_recipe(incomplete: str) -> list[str]:
    from radapter.recipe import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe file, or the name of a shipped recipe. With --resume: the run.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the recipe: optimisation.lr=1e-3 seed=1 ..."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a run (the newest, if none is named)."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would happen, stop.")
    ] = False,
    devices: Annotated[
        int,
        typer.Option(
            "--devices",
            min=1,
            help="Processes of this machine that train together, a GPU for each.",
        ),
    ] = 1,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Train what a recipe says and leave the averaged adapter in a new run folder.

    [bold]Examples[/]

        radapter train emoji
        radapter train mine.yaml optimisation.lr=3e-4 seed=1
        radapter train emoji --devices 8
        radapter train --resume
    """
    console.only_the_first_process()
    if resume:
        if overrides or (recipe and "=" in recipe):
            raise UsageError("--resume takes no overrides: a run goes on with its own recipe.")
        return _resume(recipe, devices, as_json)
    if recipe is None:
        raise UsageError(
            "Name a recipe: radapter train RECIPE. `radapter recipes` lists what ships."
        )
    from radapter import recipe as recipes

    loaded = recipes.load(recipes.locate(recipe), overrides or [])
    with console.status("loading"):
        from radapter import training
        from radapter.evaluation.suite import load_suite
    for name in loaded.suites:
        load_suite(name)  # better said now than after training
    if dry_run:
        plan = training.plan(loaded, devices)
        if as_json:
            console.print_json({"plan": asdict(plan)})
        else:
            console.result(describe(plan, loaded))
            say_data(plan.data)
        return None
    if devices > 1:
        return _launch([recipe, *(overrides or [])], devices, as_json)
    with _session() as hooks:
        start = time.monotonic()
        run = training.train(loaded, **hooks)
    return _finish(run, time.monotonic() - start, as_json)


def _launch(arguments: list[str], devices: int, as_json: bool) -> None:
    from radapter.training.launching import launch

    before = ["--debug"] if console.debug else []
    after = ["--json"] if as_json else []
    code = launch([*before, "train", *arguments, *after], devices, quiet=not console.debug)
    if code:  # the first process has said why
        raise SystemExit(code)


def _resume(name: str | None, devices: int, as_json: bool) -> None:
    from radapter.run import find

    run = find(Path(name) if name else None)
    if run.adapter.is_file():
        console.note(
            f"{run.name} has finished training already. (A longer training is a new run: "
            f"radapter train {run.path / 'recipe.yaml'} optimisation.epochs=...)"
        )
        return _finish(run, 0.0, as_json)
    if devices > 1:
        return _launch(["--resume", str(run.path)], devices, as_json)
    with console.status("loading"):
        from radapter import training
    with _session() as hooks:
        start = time.monotonic()
        training.resume(run, **hooks)
    return _finish(run, time.monotonic() - start, as_json)


@contextmanager
def _session() -> Iterator[dict[str, Any]]:
    """Progress and signals for a training session; an interruption ends in exit 130.

    The first Ctrl-C or SIGTERM saves the state after the present step, a second one stops at once.
    A rank leaves the second one to the process that started it (`launching.launch`, torchrun):
    systemd and batch systems send SIGTERM to all processes, and that one passes it on once more.
    """
    from radapter.training import launching

    asked: list[int] = []
    parent, in_ranks = os.getppid(), "RANK" in os.environ
    watched = launching.ERROR_FILE in os.environ
    # torchrun takes a second signal as it takes the first
    more = "" if watched and launching.STARTED_HERE not in os.environ else AT_ONCE

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        console.err.show_cursor(True)  # a live view hides it, and a second signal kills at once
        if not watched:
            signal.signal(number, previous[number])
        # torchrun also sends SIGTERM where another process failed: that failure is reported then.
        if asked.count(number) == 1 and (number == signal.SIGINT or not in_ranks):
            console.note(f"Stopping after this step{more}.")

    previous: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number in previous:
        signal.signal(number, ask)
    try:
        with live.shown() as hooks:

            def on_start(run: Run, plan: Plan) -> None:
                console.note(describe(plan, run.recipe()))
                console.note(f"Run: {run.path}")
                hooks["on_start"](run, plan)

            def should_stop() -> bool:
                # In sessions of their own, they would outlive a torchrun that is killed.
                return bool(asked) or (in_ranks and os.getppid() != parent)

            yield {**hooks, "on_start": on_start, "should_stop": should_stop}
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def describe(plan: Plan, recipe: Recipe) -> str:
    share = 100 * plan.trainable / plan.parameters
    processes = f"{plan.processes} x " if plan.processes > 1 else ""
    state = f"{plan.state_bytes / 1e6:,.0f} MB for weights, gradients, averages and the optimizer"
    lines = [
        f"{recipe.method.name} on {recipe.model}: {plan.trainable:,} trained parameters "
        f"({share:.1f} % of the model's {plan.parameters:,}), {state}, without activations.",
        f"{plan.pairs:,} pairs of {plan.pictures:,} pictures, batches of {plan.batch_size}, "
        f"{plan.steps:,} steps on {processes}{plan.device}.",
    ]
    if plan.unlabelled:
        more = min(recipe.in_a_batch()[1], plan.unlabelled)
        lines.append(f"{more:,} pictures of each batch are unlabelled, of {plan.unlabelled:,}.")
    if plan.cut_texts:
        lines.append(
            f"{plan.cut_texts:,} texts are longer than what is trained on: only their start is "
            "read."
        )
    if plan.fit:
        lines.append(_describe_fit(plan.fit))
    elif plan.no_fit:
        reason = plan.no_fit.rstrip(".")
        lines.append(f"What a step takes with its activations could not be estimated: {reason}.")
    return "\n".join(lines)


def _describe_fit(fit: Fit) -> str:
    def gigabytes(size: int) -> str:
        return f"{size / 2**30:,.1f}"

    memory = fit.memory
    parts = {
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "average": memory.average,
        "pictures": memory.pictures,
        "kept for the backward pass": memory.kept,
        "gradients and what lives for a moment": memory.rest,
    }
    lines = [
        f"A step takes about {gigabytes(fit.total)} GiB with its activations, an estimate: "
        + ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items())
        + "."
    ]
    if fit.read_ahead:
        lines.append(f"Workers hold pictures ready: {gigabytes(fit.read_ahead)} GiB, in /dev/shm.")
    has = f"{fit.device}, which has {gigabytes(fit.has)} GiB"
    if fit.fits:
        lines.append(f"That fits {has}.")
    else:
        lines.append(
            f"That is too much for {has} (a tenth is left free). Next to try: {fit.advice}."
        )
    return "\n".join(lines)


def say_data(accounts: dict[str, Any]) -> None:
    """Print on stderr what is left out of the data, and the notes on it."""
    from radapter.data.accounts import lines_of_accounts

    for line in lines_of_accounts(accounts):
        console.note(line)


def _start_kept(share: float) -> str:
    """A note if the average still holds its zero start, as after a short run without `warmup`."""
    return f"; {share:.1%} of the average is still its zero start" if share >= 0.001 else ""


def _finish(run: Run, duration: float, as_json: bool) -> None:
    from radapter.data.accounts import SIDES, read_accounts
    from radapter.evaluation.scores import name_of
    from radapter.registry import folds

    lines, scored = run.logged("loss"), run.logged("validation")
    accounts = read_accounts(run.path)
    last = lines[-1] if lines else {}
    if as_json:
        content = {"run": str(run.path), "adapter": str(run.adapter), "last": last}
        content["data"] = {name: accounts[name] for name in SIDES if name in accounts}
        if scored:
            content["validation"] = scored[-1]
        return console.print_json(content)
    if duration and last:
        done = max(line["step"] for line in [last, *scored])
        early = f" of {last['steps']}, as validation got no better," if done < last["steps"] else ""
        console.result(
            f"Trained {done}{early} steps in {console.seconds(last['seconds'])}, peak memory "
            f"{last['peak_memory_bytes'] / 1e9:.2f} GB ({last['memory_of']}), "
            f"loss {last['loss']:.3f}{_start_kept(last['start_share'])}."
        )
    console.result(f"Adapter: {run.adapter}")
    plain = folds(run.recipe().method.name)
    if scored:
        from radapter.reporting.runs import validation_facts

        found = validation_facts(scored)
        console.result(
            f"Validation: {name_of(found['metric'])} {found['value']:.1%}, best "
            f"{found['best']:.1%} at step {found['best_step']}: {run.best}"
        )
        if found["best_step"] != found["step"] and plain:
            console.note(
                "`radapter merge --adapter best` takes that one; `radapter merge` takes the last."
            )
    say_data(accounts)
    if not plain:
        alpha = run.recipe().alpha
        console.note(f"Export uses the last adapter as it is, at the recipe's alpha of {alpha:g}.")
    console.next_command("radapter", "merge" if plain else "export", "--run", run.path)
    return None
