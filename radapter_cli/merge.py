"""radapter merge: one plain checkpoint, same size and speed as the original."""

from __future__ import annotations

import enum
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from radapter.errors import UsageError
from radapter_cli import console
from radapter_cli.model_options import DeviceChoice, DeviceOption

if TYPE_CHECKING:
    from radapter.merging import Trained
    from radapter.run import Run


class AdapterChoice(enum.StrEnum):
    last = "last"
    best = "best"


class RuleChoice(enum.StrEnum):
    interpolate = "interpolate"
    tpgm = "tpgm"


class NormChoice(enum.StrEnum):
    mars = "mars"
    l2 = "l2"


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
    rule: Annotated[
        RuleChoice,
        typer.Option(
            help="`interpolate`: by alpha. `tpgm`: how far each tensor goes is learned on held-out "
            "data."
        ),
    ] = RuleChoice.interpolate,
    norm: Annotated[
        NormChoice | None,
        typer.Option(
            help="With tpgm: limit each row of a tensor (mars, the default), or the whole tensor."
        ),
    ] = None,
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
        radapter merge --rule tpgm
    """
    from radapter import run as runs

    learned = rule is RuleChoice.tpgm
    if learned and alpha is not None:
        raise UsageError(
            "--alpha is for --rule interpolate, and tpgm learns how far each tensor goes: leave "
            "one of the two out."
        )
    if norm is not None and not learned:
        raise UsageError("--norm is for --rule tpgm, and interpolation has none.")
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
        if learned:
            return _tpgm(found, trained, norm or NormChoice.mars, device, as_json)
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


def _tpgm(
    run: Run, trained: Trained, norm: NormChoice, device: DeviceChoice, as_json: bool
) -> None:
    from radapter.training.projecting import merge_by_tpgm

    with console.progress("learning radii") as update:
        folder, written = merge_by_tpgm(
            run, trained, norm=norm.value, device=device.value,
            on_step=lambda done, total: update(done, total, ""),
        )  # fmt: skip
    facts = run.merged_facts()
    if as_json:
        return console.print_json({"merged": str(folder), "written": written, "facts": facts})
    if kept := facts.get("kept"):
        console.result(
            f"Of a tensor's change {kept['mean']:.2f} is kept (from {kept['smallest']:.2f} to "
            f"{kept['largest']:.2f}), learned in {facts['steps']} steps on {facts['data']}."
        )
    console.result(f"{'Merged' if written else 'Up to date'}: {folder}")
    return console.next_command("radapter", "export", "--run", run.path)
