"""radapter merge: one plain checkpoint, same size and speed as the original."""

from __future__ import annotations

import enum
import math
import warnings
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from radapter.errors import UsageError
from radapter_cli import console
from radapter_cli.model_options import DeviceChoice, DeviceOption


class AdapterChoice(enum.StrEnum):
    last = "last"
    best = "best"


def merge(
    alpha: Annotated[
        str | None,
        typer.Option(
            help="0 is the base model, 1 the tuned one; `auto` picks it on held-out data. "
            "Default: the recipe's."
        ),
    ] = None,
    run: console.RunOption = None,
    adapter: Annotated[
        AdapterChoice,
        typer.Option(
            help="The adapter after the last step, or the one with the best validation, where the "
            "recipe says `monitor`."
        ),
    ] = AdapterChoice.last,
    device: DeviceOption = DeviceChoice.auto,
    data_root: console.DataRootOption = None,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="With auto: compute every feature, and keep none."),
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Fold the adapter into the base weights: merged/alpha-A/ in open_clip's folder format.

    [bold]Examples[/]

        radapter merge
        radapter merge --alpha 0.3
        radapter merge --alpha auto
        radapter merge --adapter best
    """
    from radapter import run as runs

    try:
        wanted = None if alpha is None or alpha == "auto" else float(alpha)
    except ValueError:
        raise UsageError(f"--alpha takes a number or `auto`, found '{alpha}'.") from None
    if wanted is not None and not math.isfinite(wanted):
        raise UsageError(f"--alpha takes a finite number or `auto`, found '{alpha}'.")
    found = runs.find(Path(run) if run else None)
    recipe = found.recipe()
    which = cast(Literal["last", "best"], adapter.value)
    found.trained(which)
    with console.status("loading"):
        from radapter import merging
        from radapter.evaluation import alphas
        from radapter.evaluation.cache import user_cache
    with found.lock():
        trained = merging.open_trained(found, which)
        choice = None
        if alpha == "auto":
            with console.progress("choosing alpha") as update:
                choice = alphas.choose_alpha(
                    recipe,
                    trained,
                    device=device.value,
                    cache=None if no_cache else user_cache(),
                    on_progress=lambda done, total: update(done, total, ""),
                )
            alphas.write_choice(found, trained, choice)
        value = choice["alpha"] if choice else recipe.alpha if wanted is None else wanted
        folder, written = merging.write_merged(found, value, trained)
        warning = alphas.base_alone(choice) if choice else None
        if warning:
            warnings.warn(warning, stacklevel=1)
    if as_json:
        content = {"merged": str(folder), "alpha": value, "written": written, "choice": choice}
        console.print_json(content | ({"warning": warning} if warning else {}))
        return
    if choice:
        console.result(f"alpha {value:g}: {choice['rule']}.")
        for point in choice["curve"]:
            mark = "  <-" if point["alpha"] == value else ""
            console.result(
                f"  {point['alpha']:.1f}  {100 * point['score']:5.1f}  "
                f"{100 * point['behind']:4.1f} ±{100 * point['standard_error']:.1f}{mark}"
            )
        console.result(
            f"alpha, {choice['metric']} in % on {choice['items']} held-out items, and how far that "
            "is behind the best ± one standard error."
        )
    console.result(f"{'Merged' if written else 'Up to date'}: {folder}")
    console.next_command("radapter", "export", "--run", found.path)
