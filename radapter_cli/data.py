"""radapter data: what the suites need, whether it is there, whether it is right; key frames; pairs
filtered."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from radapter.errors import BrokenInput, UsageError, nearest
from radapter_cli import console, data_filter, data_frames
from radapter_cli.eval import complete_suite
from radapter_cli.model_options import FP32, DeviceChoice, DeviceOption, PrecisionOption

ACTIONS = ["list", "check", "frames", "filter"]


class ByChoice(enum.StrEnum):
    uniform = "uniform"
    change = "change"


def data(
    action: Annotated[str, typer.Argument(help="list, check, frames or filter")] = "list",
    suite: Annotated[
        str | None,
        typer.Argument(
            help="A suite's name or file; or a recipe's, to check what it trains on. With "
            "frames: a folder of videos. With filter: a recipe of a list with captions.",
            autocompletion=complete_suite,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With frames and filter: where it goes.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, metavar="N", help="With frames: how many of each video.")
    ] = 12,
    by: Annotated[
        ByChoice,
        typer.Option(
            help="With frames: of segments of equal length, or in which the picture changes "
            "equally much."
        ),
    ] = ByChoice.uniform,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="With filter: what goes, such as 'score<30%' or 'words<4'; may be repeated.",
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With filter: captions that were rewritten, JSON lines."),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="With filter: pictures that limits are taken from."),
    ] = 10_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With filter: judge the sample, and write nothing.")
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="With filter: the run whose model scores. Default: the recipe's base model.",
            autocompletion=console.complete_run,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME:TAG|FOLDER|BUNDLE",
            help="With filter: the model that scores.",
        ),
    ] = None,
    device: DeviceOption = DeviceChoice.auto,
    precision: PrecisionOption = FP32,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show which data sets are there, or check those of a suite; exit 4 if something is wrong.

    [bold]frames[/] writes a few pictures of each video into a folder under the video's name, which
    is read many times faster than the video. Typed again, it goes on, and does what has changed.

    [bold]filter[/] scores every caption of a recipe's list with its picture or clip, and writes
    what is kept as a list that the recipe reads, what is dropped with the reason, and a report. A
    rule is a measure (score, words, letters, or pictures that have the same caption), < or >, and a
    number or a share of a sample. What cannot be read and exact copies go too.

    [bold]Examples[/]

        radapter data list
        radapter data check emoji-shifts
        radapter data check retrieval --data-root /data
        radapter data check my-recipe.yaml
        radapter data frames videos/ --out frames/ --by change
        radapter data filter my.yaml --out new/ --drop "words<4"
    """
    if action not in ACTIONS:
        raise UsageError(f"Unknown action '{action}'.{nearest(action, ACTIONS)}")
    if action == "frames":
        return data_frames.frames(suite, out, frames, by.value, as_json)
    if action == "filter":
        wanted = data_filter.Wanted(drop or [], captions, sample, dry_run)
        which = (run, model, device, precision)
        return data_filter.filter_pairs(suite, out, wanted, which, as_json)
    if out is not None:
        raise UsageError(
            "--out goes with frames and filter: radapter data frames VIDEOS --out FOLDER"
        )
    if action == "check" and suite is None:
        raise UsageError("Name a suite: radapter data check SUITE. `radapter data` lists them.")
    with console.status("loading"):
        from radapter.evaluation.checking import look
        from radapter.evaluation.suite import load_suite, shipped_suites
    if action == "check" and is_recipe(str(suite)):
        return check_recipe(str(suite), as_json)
    if action == "check":
        return check_suite(load_suite(str(suite)), as_json)
    suites = [load_suite(name) for name in ([suite] if suite else shipped_suites())]
    found = {s.name: look(s) for s in suites}
    if as_json:
        facts = {s.name: {"description": s.description, "datasets": found[s.name]} for s in suites}
        return console.print_json({"suites": facts})
    for name, datasets in found.items():
        print_suite(name, datasets)
    console.next_command("radapter", "data", "check", "SUITE")
    return None


def is_recipe(name: str) -> bool:
    """Whether a file is a recipe: suites have no method."""
    from radapter.errors import RadapterError
    from radapter.recipe_yaml import read_file

    try:
        return Path(name).is_file() and "method" in read_file(name)
    except RadapterError:
        return False


def check_recipe(name: str, as_json: bool) -> None:
    """What a recipe would use of its data and leave out, and which pictures are copies."""
    from radapter import recipe as recipes
    from radapter.data import open_data
    from radapter.data.accounts import SIDES, accounts_of, lines_of_accounts
    from radapter.evaluation import seeing

    recipe = recipes.load(name)
    needed = recipe.validation is not None
    accounts = accounts_of(
        open_data(recipe.data),
        recipe.validation_data(),
        needed=needed,
        unlabelled=seeing.open_checked(recipe),
    )
    if as_json:
        return console.print_json({"recipe": name, "data": accounts})
    for side in SIDES:
        if side in accounts:
            facts = accounts[side]
            console.result(f"{side}: {facts['pictures']:,} pictures of {facts['source']}")
    for line in lines_of_accounts(accounts):
        console.result(line)
    return console.next_command("radapter", "train", name, "--dry-run")


def check_suite(suite: Any, as_json: bool) -> None:
    from radapter.data.copies import lines_of_copies
    from radapter.data.left_out import lines_of_summary
    from radapter.evaluation.checking import check

    with console.progress(suite.name) as update:
        found = check(suite, on_progress=lambda done, total: update(done, total, ""))
    wrong = [name for name, facts in found.items() if facts["findings"]]
    details = {"suite": suite.name, "datasets": found}
    if not as_json:
        print_suite(suite.name, found)
        for name, facts in found.items():
            said = lines_of_summary(facts.get("left_out", {}))
            for line in said + lines_of_copies(facts.get("copies", {})):
                console.result(f"  {name}: {line}")
        for name in wrong:
            console.out.print()
            console.out.print(name, style="bold")
            for finding in found[name]["findings"]:
                console.result(f"  {finding}")
            published = found[name]["published"]
            if published:
                console.result(f"  published: {published['where']}")
                console.result(f"  licence:   {published['licence']}")
                console.result(f"  folder:    {published['folder']}, under the data root")
    if wrong:
        raise BrokenInput(
            f"{suite.name}: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not as "
            "published. Paths start from --data-root, RADAPTER_DATA or the working folder.",
            details=details,
        )
    if as_json:
        console.print_json(details)
    else:
        decoded = sum(facts["decoded"] for facts in found.values())
        console.result(f"All is as published; {decoded:,} pictures decoded.")


def print_suite(name: str, datasets: dict[str, dict[str, Any]]) -> None:
    """A line a data set: status and counts."""
    console.out.print(name, style="bold")
    width = max(map(len, datasets))
    for dataset, facts in datasets.items():
        counts = f"{facts['pictures']:,} pictures" if facts["pictures"] else ""
        if facts["classes"]:
            counts += f", {facts['classes']:,} classes"
        if facts["captions"]:
            each = list(facts["captions_a_picture"])
            span = f"{each[0]}" if len(each) == 1 else f"{each[0]} to {each[-1]}"
            counts += f", {facts['captions']:,} captions, {span} each"
        if facts.get("edits"):
            counts += f", {facts['edits']:,} edits"
        published = facts["published"]
        if published and facts["status"] != "present":
            counts += f" (published: {published['pictures']:,} in {published['folder']})"
        console.result(f"  {dataset:{width}}  {facts['status']:8} {counts}".rstrip())
