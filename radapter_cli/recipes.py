"""radapter recipes: what ships, how to start one's own, and what a recipe may say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from radapter.errors import UsageError, nearest
from radapter_cli import console
from radapter_cli.train import complete_recipe


def recipes(
    action: Annotated[str, typer.Argument(help="list, show, copy or schema")] = "list",
    name: Annotated[
        str | None,
        typer.Argument(
            help="A shipped recipe; with schema: recipe (the default), suite or study.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """List the shipped recipes, show one, copy one here to change it, or print JSON Schema.

    [bold]Examples[/]

        radapter recipes
        radapter recipes show emoji
        radapter recipes copy own-data
        radapter recipes schema > schema.json
    """
    from radapter import recipe as recipe_module
    from radapter.files import write_atomic

    known = recipe_module.shipped()
    if action not in (actions := ["list", "show", "copy", "schema"]):
        raise UsageError(f"Unknown action '{action}'.{nearest(action, actions)}")
    if action == "schema":
        schema = _schema(name or "recipe")
        if as_json:
            console.print_json({"schema": schema})
        else:
            print(json.dumps(schema, indent=1, ensure_ascii=False))
        return
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
        raise UsageError(f"{what} `radapter recipes` lists what ships.")
    # The first line leads editors to the schema that lies beside the shipped recipes alone.
    text = re.sub(r"^# yaml-language-server:.*\n", "", known[name].read_text(encoding="utf-8"))
    if action == "show":
        if as_json:
            console.print_json({"name": name, "text": text})
        else:
            print(text, end="")
        return
    target = Path(known[name].name)
    if target.exists():
        raise UsageError(f"{target} exists already: move it away first.")
    write_atomic(target, text)
    if as_json:
        console.print_json({"copied": str(target)})
        return
    console.result(f"Copied: {target}")
    console.next_command("radapter", "train", target)


def _schema(of: str) -> dict[str, Any]:
    """JSON Schema of recipes, suites or studies."""
    from radapter.recipe_schema import json_schema

    if of == "recipe":
        from radapter.recipe import Recipe

        return json_schema(Recipe)
    if of == "suite":
        from radapter.evaluation.suite import Suite

        return json_schema(Suite)
    if of == "study":
        from radapter.study.schema import Study

        return json_schema(Study)
    raise UsageError(f"Unknown schema '{of}'.{nearest(of, ['recipe', 'suite', 'study'])}")
