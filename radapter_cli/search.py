"""radapter search: what of a features file is nearest to a text, a picture, or both."""

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
    image: Annotated[
        Path | None,
        typer.Option(help="Or a picture; with a text, what is to be changed of that picture."),
    ] = None,
    text_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="What the text counts beside --image; the picture has the rest. Default: the "
            "query that the model makes of both, where it was trained to; else 0.5.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    run: console.RunOption = None,
    model: ModelOption = None,
    runtime: EngineOption = None,
    device: DeviceOption = DeviceChoice.auto,
    as_json: console.JsonOption = False,
) -> None:
    """Find pictures or videos by a text, a picture, or a picture and what is to be changed of it,
    with the model that their features were made with. Of a piece of a video it says when it is.

    [bold]Examples[/]

        radapter search "a bicycle" --in photos.safetensors
        radapter search --image a.jpg --in photos.safetensors
        radapter search --image a.jpg "blue" --in f.safetensors
    """
    if text is None and image is None:
        raise UsageError("What to look for is a text, --image, or both: give one of them.")
    if text_weight is not None and (text is None or image is None):
        raise UsageError("--text-weight is for a text beside --image: give both, or leave it out.")
    with console.status("loading"):
        from radapter.inference import features, searching
    facts = features.read_facts(file)  # before the model: it is quick, and what is often wrong
    opened = open_chosen(run, model, runtime, device)
    searching.check_model(file, opened, pictures=image is not None)
    if text is not None and image is not None and text_weight is None and opened.lacks_query:
        console.note(
            f"{opened.runtime.name} in {opened.runtime.precision} has no query model, so the query "
            f"is the sum of picture and text, {searching.TEXT_WEIGHT} each: for the model's own, "
            "give --run with --runtime torch, or export a bundle in fp32 or fp16."
        )
    query = searching.query_of(opened, text, image, text_weight)
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
        query_facts: dict[str, object] = {} if text is None else {"text": text}
        query_facts |= {} if image is None else {"image": str(image)}
        if len(query_facts) == 2 and (text_weight is not None or opened.query is None):
            weight = searching.TEXT_WEIGHT if text_weight is None else text_weight
            query_facts["text_weight"] = weight
        elif len(query_facts) == 2:
            query_facts["template"] = opened.query
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
