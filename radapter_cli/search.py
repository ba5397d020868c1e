"""radapter search: what of a features file is nearest to a text or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radapter.errors import UsageError
from radapter_cli import console
from radapter_cli.model_options import (
    DeviceChoice,
    DeviceOption,
    EngineOption,
    ModelOption,
    open_chosen,
)


def search(
    file: Annotated[Path, typer.Option("--in", help="A features file that `embed` made.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option(help="Or a picture to look for.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    run: console.RunOption = None,
    model: ModelOption = None,
    runtime: EngineOption = None,
    device: DeviceOption = DeviceChoice.auto,
    as_json: console.JsonOption = False,
) -> None:
    """Find pictures or videos by a text or a picture, with the model that their features were made
    with. Of a piece of a video it says when it is.

    [bold]Examples[/]

        radapter search "a bicycle" --in photos.safetensors
        radapter search --image a.jpg --in photos.safetensors
    """
    if (text is None) == (image is None):
        raise UsageError("What to look for is either a text or --image: give one of them.")
    with console.status("loading"):
        from radapter.inference import features, searching
    facts = features.read_facts(file)  # before the model: it is quick, and what is often wrong
    opened = open_chosen(run, model, runtime, device)
    searching.check_model(file, opened, pictures=image is not None)
    query = searching.encode_query(opened, image if text is None else text)  # type: ignore[arg-type]
    found = searching.search(file, query, top)
    if as_json:
        results = [
            {
                "picture": name,
                "path": searching.picture_path(file, name),
                "cosine": cosine,
                **({"when": said} if (said := searching.when(name)) else {}),
            }
            for name, cosine in found
        ]
        query_facts = {"text": text} if image is None else {"image": str(image)}
        content = {"features": str(file), "model": opened.name, "query": query_facts}
        content["left_out"] = facts.get("left_out", {})
        return console.print_json(content | {"results": results})
    from radapter.data.left_out import lines_of_summary
    from radapter.reporting.table import Column, Table

    table = Table([Column("cosine"), Column("picture", left=True, wrap="letters")])
    for name, cosine in found:
        where = [searching.picture_path(file, name), searching.when(name)]
        table.add(f"{cosine:.3f}", ", ".join(filter(None, where)))
    console.out.print(table)
    for line in lines_of_summary(facts.get("left_out", {})):
        console.note(f"{file}: {line}")
    return None
