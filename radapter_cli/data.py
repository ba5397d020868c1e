"""radapter data: what the suites need, whether it is there, whether it is right; and what makes
data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from radapter.errors import BrokenInput, UsageError, nearest
from radapter_cli import console
from radapter_cli.data_filter import filter_pairs
from radapter_cli.data_frames import frames
from radapter_cli.eval import complete_suite

SuiteArgument = Annotated[
    str | None,
    typer.Argument(help="A suite's name or file. Default: all.", autocompletion=complete_suite),
]


def data() -> None:
    """Show which data sets are there, check them, make key frames of videos, or filter pairs.

    Without an action it is [bold]list[/].

    [bold]Examples[/]

        radapter data
        radapter data check emoji-shifts
        radapter data frames videos/ --out frames/
        radapter data filter my.yaml --out new/
    """


def list_sets(
    suite: SuiteArgument = None,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show which data sets of the suites are there.

    [bold]Examples[/]

        radapter data list
        radapter data list retrieval --data-root /data
    """
    with console.status("loading"):
        from radapter.evaluation.checking import look
        from radapter.evaluation.suite import load_suite, shipped_suites
    suites = [load_suite(name) for name in ([suite] if suite else shipped_suites())]
    found = {s.name: look(s) for s in suites}
    if as_json:
        facts = {s.name: {"description": s.description, "datasets": found[s.name]} for s in suites}
        return console.print_json({"suites": facts})
    for name, datasets in found.items():
        print_suite(name, datasets)
    return console.next_command("radapter", "data", "check", "SUITE")


def check(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE|RECIPE",
            help="A suite's name or file; or a recipe's file, to check what it trains on.",
            autocompletion=complete_suite,
        ),
    ] = None,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Check the data of a suite or of a recipe; exit 4 if something is wrong.

    [bold]Examples[/]

        radapter data check emoji-shifts
        radapter data check retrieval --data-root /data
        radapter data check my-recipe.yaml
    """
    if suite is None:
        raise UsageError("Name a suite: radapter data check SUITE. `radapter data` lists them.")
    if is_recipe(suite):
        return check_recipe(suite, as_json)
    with console.status("loading"):
        from radapter.evaluation.suite import load_suite
    return check_suite(load_suite(suite), as_json)


ACTIONS: dict[str, Callable[..., None]] = {
    "list": list_sets,
    "check": check,
    "frames": frames,
    "filter": filter_pairs,
}


class ListByDefault(TyperGroup):
    """A command with actions, of which `list` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in ctx.help_option_names or not args[0].startswith("-"))
        if not named and not ctx.resilient_parsing:  # which completion does
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(f"Unknown action '{args[0]}'.{nearest(args[0], [*self.commands])}")
        return super().resolve_command(ctx, args)


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
