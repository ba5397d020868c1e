"""radapter soup: one run of several, their changes averaged."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from radapter.errors import UsageError
from radapter_cli import console
from radapter_cli.merge import AdapterChoice
from radapter_cli.model_options import DeviceChoice, DeviceOption


class RuleChoice(enum.StrEnum):
    uniform = "uniform"
    greedy = "greedy"
    model_stock = "model-stock"


class TiesChoice(enum.StrEnum):
    leave = "leave"
    add = "add"


def soup(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, or their names under ./runs.", autocompletion=console.complete_run
        ),
    ],
    rule: Annotated[
        RuleChoice,
        typer.Option(
            help="`uniform`: the mean. `greedy`: of those that raise the score on held-out data. "
            "`model-stock`: the mean, nearer to the base where runs disagree."
        ),
    ] = RuleChoice.uniform,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="How much of the averaged change `merge` keeps, and what `greedy` scores at. "
            "Default: 1 for model-stock, else that of the first run's recipe."
        ),
    ] = None,
    adapter: Annotated[
        AdapterChoice,
        typer.Option(help="The runs' adapters after the last step, or the best by validation."),
    ] = AdapterChoice.last,
    ties: Annotated[
        TiesChoice | None,
        typer.Option(
            help="With greedy: leave out a run that changes the score by nothing (the default), or "
            "add it."
        ),
    ] = None,
    device: DeviceOption = DeviceChoice.auto,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Average what several runs have changed, and write a run folder of it like any other.

    The runs have one base model and the same classes. `merge`, `export`, `eval` and `compare` take
    the new run; `runs show` says what it is made of.

    [bold]Examples[/]

        radapter soup runs/my-run-1 runs/my-run-2
        radapter soup runs/my-run-* --rule greedy
        radapter soup runs/my-run-* --rule model-stock
    """
    from radapter.run import find

    if alpha is not None and not math.isfinite(alpha):
        raise UsageError(f"--alpha takes a finite number, found {alpha}.")
    greedy = rule.value == "greedy"
    if ties is not None and not greedy:
        raise UsageError(f"--ties is for --rule greedy, and {rule.value} scores nothing.")
    found = list({run.path.resolve(): run for run in (find(Path(name)) for name in runs)}.values())
    with console.status("loading"):
        from radapter.evaluation import held_out
        from radapter.merging.soup import check_together, soup
        from radapter.reporting.soups import in_words
    check_together(found)
    settings: dict[str, Any] = {"ties": ties.value} if ties else {}
    with console.progress("scoring" if greedy else "averaging") as update:
        if greedy:
            held_out.check_same_held_out(found)
            settings["scorer"] = lambda trained, at: held_out.scorer(
                found[0].recipe(), trained, at, device=device.value,
                on_progress=lambda done, total: update(done, total, ""),
            )  # fmt: skip
        which = cast(Literal["last", "best"], adapter.value)
        made = soup(found, rule.value, alpha=alpha, which=which, **settings)
    about = made.soup()
    assert about is not None
    if as_json:
        console.print_json({"run": str(made.path), "soup": about})
        return
    for line in in_words(about):
        console.result(line)
    console.result(f"Written: {made.path}")
    console.next_command("radapter", "merge", "--run", made.path)
