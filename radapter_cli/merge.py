"""radapter merge: one plain checkpoint, same size and speed as the original."""

from __future__ import annotations

import enum
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from radapter.errors import UsageError
from radapter_cli import console
from radapter_cli.model_options import DeviceChoice, DeviceOption

if TYPE_CHECKING:
    from radapter.evaluation.cache import Cache
    from radapter.merging import Trained
    from radapter.run import Run


class AdapterChoice(enum.StrEnum):
    last = "last"
    best = "best"


class RuleChoice(enum.StrEnum):
    interpolate = "interpolate"
    tpgm = "tpgm"
    dawin = "dawin"
    vrf = "vrf"


class DistanceChoice(enum.StrEnum):
    squared = "squared"
    euclidean = "euclidean"


class NormChoice(enum.StrEnum):
    mars = "mars"
    l2 = "l2"


def merge(
    alpha: Annotated[
        str | None,
        typer.Option(
            help="0 is the base model, 1 the tuned one; `image=0.4,text=0.7` is one for the image "
            "tower and one for all else; `auto` and `auto-per-tower` pick them on held-out data. "
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
            "data. `dawin`, `vrf`: the zero-shot and the tuned model together, mixed per picture "
            "as fitted on held-out data."
        ),
    ] = RuleChoice.interpolate,
    clusters: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="With dawin: answer each picture by one of so many merged models, not by the mean "
            "of both models' answers. Published: 3.",
        ),
    ] = None,
    transductive: Annotated[
        bool,
        typer.Option(
            "--transductive",
            help="With dawin --clusters: `eval` fits the clusters on the pictures that it scores, "
            "without their labels, as the released code does. Results are marked.",
        ),
    ] = False,
    distance: Annotated[
        DistanceChoice | None,
        typer.Option(
            help="With vrf: `squared` as in the released code (the default), or `euclidean` as in "
            "the paper."
        ),
    ] = None,
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
        typer.Option("--no-cache", help="Compute every feature, and keep none."),
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Fold the adapter into the base weights: merged/alpha-A/ in open_clip's folder format.

    [bold]Examples[/]

        radapter merge
        radapter merge --alpha 0.3
        radapter merge --alpha auto
        radapter merge --alpha auto-per-tower
        radapter merge --adapter best
        radapter merge --rule tpgm
        radapter merge --rule dawin
        radapter merge --rule dawin --clusters 3
        radapter merge --rule vrf
    """
    from radapter import run as runs

    wanted = _alpha(alpha, rule)
    settings = _settings(
        rule, norm=norm, clusters=clusters, transductive=transductive or None, distance=distance
    )
    if transductive and clusters is None:
        raise UsageError("--transductive is of clusters: add --clusters 3.")
    found = runs.find(Path(run) if run else None)
    recipe = found.recipe()
    which = cast(Literal["last", "best"], adapter.value)
    found.trained(which)
    with console.status("loading"):
        from radapter import merging
        from radapter.evaluation import alphas, held_out
        from radapter.evaluation.cache import user_cache
    if rule is not RuleChoice.interpolate or alpha in AUTO:
        held_out.check_unseen(found)
    with found.lock():
        trained = merging.open_trained(found, which)
        if rule is RuleChoice.tpgm:
            return _tpgm(found, trained, settings, device, as_json)
        if rule is not RuleChoice.interpolate:
            assert not isinstance(wanted, tuple)
            at = 1.0 if wanted is None else wanted
            cache = None if no_cache else user_cache()
            return _mixture(found, trained, rule, at, settings, device, cache, as_json)
        if alpha == AUTO[1] or isinstance(wanted, tuple):
            return _per_tower(found, trained, wanted, device, no_cache, as_json)
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


def _alpha(text: str | None, rule: RuleChoice) -> float | tuple[float, float] | None:
    """The number that was given, or those of the image tower and of all else; None without one, and
    for AUTO."""
    if rule is RuleChoice.tpgm and text is not None:
        raise UsageError(
            "--alpha is for --rule interpolate, and tpgm learns how far each tensor goes: leave "
            "one of the two out."
        )
    if rule is not RuleChoice.interpolate and text and (text in AUTO or "=" in text):
        raise UsageError(
            f"--alpha {text} is for --rule interpolate: {rule.value} is of the model at alpha 1, "
            "or at the number that you give."
        )
    if text is None or text in AUTO:
        return None
    known = "a finite number, `image=0.4,text=0.7`, `auto` or `auto-per-tower`"
    try:
        pairs = [part.split("=") for part in text.split(",")] if "=" in text else [["", text]]
        found = sorted((name.strip(), float(number)) for name, number in pairs)
    except ValueError:
        found = []
    names, numbers = [name for name, _ in found], [number for _, number in found]
    wanted = ["image", "text"] if "=" in text else [""]
    if names != wanted or not all(map(math.isfinite, numbers)):
        raise UsageError(f"--alpha takes {known}, found '{text}'.")
    return (numbers[0], numbers[1]) if "=" in text else numbers[0]


AUTO = ("auto", "auto-per-tower")
OF = {
    "norm": RuleChoice.tpgm,
    "clusters": RuleChoice.dawin,
    "transductive": RuleChoice.dawin,
    "distance": RuleChoice.vrf,
}
"""The rule that an option belongs to"""


def _settings(rule: RuleChoice, **options: Any) -> dict[str, Any]:
    """What was given of a rule's settings."""
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if OF[key] is not rule:
            raise UsageError(
                f"--{key} is for --rule {OF[key].value}, and {rule.value} has none: leave it out."
            )
    return {key: getattr(value, "value", value) for key, value in given.items()}


def _per_tower(
    run: Run,
    trained: Trained,
    wanted: float | tuple[float, float] | None,
    device: DeviceChoice,
    no_cache: bool,
    as_json: bool,
) -> None:
    from radapter import merging
    from radapter.evaluation import alphas
    from radapter.evaluation.cache import user_cache

    said = ""
    if isinstance(wanted, tuple):
        folder, written = merging.write_merged(run, wanted, trained)
    else:
        with console.progress("choosing alpha") as update:
            choice = alphas.choose_per_tower(
                run.recipe(), trained, device=device.value,
                cache=None if no_cache else user_cache(),
                on_progress=lambda done, total: update(done, total, ""),
            )  # fmt: skip
        folder, written = alphas.merge_per_tower(run, trained, choice)
        point = next(p for p in choice["curve"] if choice["alphas"].items() <= p.items())
        said = (
            f"alpha {point['image']:g} of images, {point['text']:g} of texts: "
            f"{choice['metric']} {100 * point['score']:.1f} % on {choice['items']} held-out items, "
            f"{100 * point['behind']:.1f} ±{100 * point['standard_error']:.1f} behind the best of "
            f"{len(choice['curve'])} pairs."
        )
    _say(run, folder, written, run.merged_facts(), said, as_json)


def _tpgm(
    run: Run, trained: Trained, settings: dict[str, Any], device: DeviceChoice, as_json: bool
) -> None:
    from radapter.training.projecting import merge_by_tpgm

    with console.progress("learning radii") as update:
        folder, written = merge_by_tpgm(
            run, trained, **settings, device=device.value,
            on_step=lambda done, total: update(done, total, ""),
        )  # fmt: skip
    facts = run.merged_facts()
    said = ""
    if kept := facts.get("kept"):
        said = (
            f"Of a tensor's change {kept['mean']:.2f} is kept (from {kept['smallest']:.2f} to "
            f"{kept['largest']:.2f}), learned in {facts['steps']} steps on {facts['data']}."
        )
    _say(run, folder, written, facts, said, as_json)


def _mixture(
    run: Run,
    trained: Trained,
    rule: RuleChoice,
    alpha: float,
    settings: dict[str, Any],
    device: DeviceChoice,
    cache: Cache | None,
    as_json: bool,
) -> None:
    from radapter.evaluation.mixing import merge_by_gate

    with console.progress("fitting on held-out pictures") as update:
        folder, written = merge_by_gate(
            run, trained, rule.value, alpha=alpha, device=device.value, cache=cache,
            on_progress=lambda done, total: update(done, total, ""), **settings,
        )  # fmt: skip
    facts = run.merged_facts()
    about = facts["mixture"]
    centres = "".join(f", {alpha * centre:.2f}" for centre in about.get("centres", ()))
    said = (
        f"{about['models']} models, at alpha 0, {alpha:g}{centres}: each picture goes through all "
        f"of them. Fitted on {about['fitted_on']}."
    )
    if "transductive" in facts:
        said = (
            f"`radapter eval` fits {facts['transductive']} clusters on each data set that it "
            "scores, without labels, and marks the scores. Nothing else can use this model."
        )
    _say(run, folder, written, facts, said, as_json)


def _say(
    run: Run, folder: Path, written: bool, facts: dict[str, Any], said: str, as_json: bool
) -> None:
    if as_json:
        console.print_json({"merged": str(folder), "written": written, "facts": facts})
        return
    if said:
        console.result(said)
    console.result(f"{'Merged' if written else 'Up to date'}: {folder}")
    following = "eval" if "transductive" in facts else "export"
    console.next_command("radapter", following, "--run", run.path)
