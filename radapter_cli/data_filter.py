"""radapter data filter: pairs of pictures or clips and captions, the better ones of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radapter.errors import BrokenInput, UsageError
from radapter_cli import console
from radapter_cli.model_options import DeviceChoice, PrecisionChoice, open_chosen

SEVERAL = 20
"""Broken items that are named"""


@dataclass(frozen=True)
class Wanted:
    """What is to be dropped, and how much is looked at."""

    drop: list[str]
    captions: Path | None
    sample: int
    dry_run: bool


def filter_pairs(
    name: str | None,
    out: Path | None,
    wanted: Wanted,
    which: tuple[str | None, str | None, DeviceChoice, PrecisionChoice],
    as_json: bool,
) -> None:
    """Write the lists and say what was dropped; exit 4 if more cannot be read than is allowed.

    Args:
        name: the recipe.
        which: run, model, device and precision; without run and model the recipe's base model.
    """
    if name is None or (out is None and not wanted.dry_run):
        raise UsageError(
            "Name a recipe and where lists go: radapter data filter RECIPE --out FOLDER"
        )
    if out is not None and out.is_file():
        raise UsageError(f"--out takes a folder, and {out} is a file.")
    from radapter import recipe as recipes
    from radapter.data.pair_rules import parsed

    rules = [parsed(text) for text in wanted.drop]
    recipe = recipes.load(recipes.locate(name))
    run, model, device, precision = which
    opened = open_chosen(run, model if run or model else recipe.model, None, device, precision)
    from radapter.evaluation.cache import user_cache
    from radapter.inference import filtering

    with console.progress("filter") as update:
        pairs = filtering.judged(
            recipe.data,
            opened,
            rules,
            rewritten=wanted.captions,
            sample=wanted.sample,
            only_sample=wanted.dry_run,
            cache=user_cache(),
            on_progress=lambda done, total: update(done, total, ""),
        )
    facts: dict[str, Any] = {"recipe": name, **pairs.facts}
    if out is not None and not wanted.dry_run:
        facts |= filtering.written(pairs, out)
    for message in pairs.broken[:SEVERAL]:
        console.note(f"cannot be read: {message}")
    if not as_json:
        _print(facts, out if not wanted.dry_run else None)
    if len(pairs.broken) > recipe.data.broken_images:
        raise BrokenInput(
            f"{len(pairs.broken)} of {facts['pictures']['all']} pictures cannot be read, and "
            f"data.broken_images allows {recipe.data.broken_images}.",
            facts,
        )
    if as_json:
        return console.print_json(facts)
    if out is not None and not wanted.dry_run:
        changes = [f"{key}={value}" for key, value in facts["changes"].items()]
        return console.next_command("radapter", "train", name, *changes)
    words = [word for text in wanted.drop for word in ("--drop", text)]
    return console.next_command("radapter", "data", "filter", name, "--out", "FOLDER", *words)


def _print(facts: dict[str, Any], out: Path | None) -> None:
    for rule, limit in facts["limits"].items():
        console.note(f"{rule}: the limit is {limit:.4g}")
    for why, of in facts["dropped"].items():
        console.result(f"dropped: {of['count']:,} {why} ({', '.join(of['first'])})")
    if "rewritten" in facts:
        own = facts["rewritten"]
        console.result(f"rewritten: captions of {own['pictures']:,} pictures")
        if own["unknown"]["count"]:
            first = ", ".join(own["unknown"]["first"])
            console.note(f"{own['unknown']['count']:,} names in it are not in the list ({first})")
    if "copies_not_looked_for" in facts:
        console.note(f"copies of pictures: not looked for, {facts['copies_not_looked_for']}")
    pairs, pictures = facts["pairs"], facts["pictures"]
    share = 100 * pairs["kept"] / pairs["all"]
    of_sample = " of the sample" if facts["only_sample"] else ""
    console.result(
        f"Kept: {pairs['kept']:,} of {pairs['all']:,} pairs{of_sample} ({share:.1f} %), of "
        f"{pictures['kept']:,} pictures" + (f" ({out})" if out else "")
    )
