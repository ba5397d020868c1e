"""radapter recipes: what ships, and how to start one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import UsageError, nearest
from radapter_cli import console
from radapter_cli.train import complete_recipe


def recipes(
    action: Annotated[str, typer.Argument(help="list, show or copy")] = "list",
    name: Annotated[
        str | None, typer.Argument(help="A shipped recipe.", autocompletion=complete_recipe)
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """List the shipped recipes, show one, or copy one here to change it.

    [bold]Examples[/]

        radapter recipes

        radapter recipes show emoji

        radapter recipes copy own-data
    """
    from radapter import recipe as recipe_module
    from radapter.files import write_atomic

    known = recipe_module.shipped()
    if action not in ("list", "show", "copy"):
        raise UsageError(f"recipes: '{action}' is none of list, show, copy.")
    if action == "list":
        rows = {key: recipe_module.load(path).description for key, path in known.items()}
        if as_json:
            console.print_json({"recipes": rows})
            return
        width = max(map(len, rows))
        for key, description in rows.items():
            console.result(f"{key:{width}}  {description}")
        console.next_command("radapter", "recipes", "copy", "NAME")
        return
    if name not in known:
        what = f"Unknown recipe '{name}'.{nearest(name, list(known))}" if name else "Name a recipe."
        raise UsageError(f"{what} `radapter recipes` lists them.")
    text = known[name].read_text(encoding="utf-8")
    if action == "show":
        if as_json:
            console.print_json({"name": name, "text": text})
        else:
            print(text, end="")
        return
    target = Path(known[name].name)
    if target.exists():
        raise UsageError(f"{target} is here already: move it away first.")
    write_atomic(target, text)
    if as_json:
        console.print_json({"copied": str(target)})
        return
    console.result(f"Copied: {target}")
    console.next_command("radapter", "train", target)
