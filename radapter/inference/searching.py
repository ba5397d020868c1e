"""The pictures of a features file that are nearest to a query."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radapter.data.clip_pieces import name_and_span
from radapter.data.pictures import Pictures
from radapter.errors import BrokenInput
from radapter.evaluation.composed import summed_query
from radapter.inference.features import chunks, names_of, read_facts
from radapter.models.queries import asked
from radapter.runtimes.opened import OpenModel

TEXT_WEIGHT = 0.5
"""What a text counts beside a picture"""


def search(
    path: Path | str, query: Tensor, top: int = 10, *, rows: int = 16384
) -> list[tuple[str, float]]:
    """(name, cosine) of the `top` nearest pictures, the nearest first; of equal ones the earlier.

    Exact. Memory: one chunk of features, whatever the size of the file.

    Args:
        path: a file that `embed` made.
        query: unit-norm feature [dim], of the model that the file was made with.
        rows: how many pictures' features to read at once.
    """
    scores, places = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for start, features in chunks(path, rows):
        # No matrix product: there the last bits depend on a row's place, and equal rows must tie.
        scores = torch.cat([scores, (features * query).sum(dim=1)])
        places = torch.cat([places, torch.arange(start, start + len(features))])
        # Stable, and what was found before stands first: ties go to the earlier picture.
        order = scores.argsort(descending=True, stable=True)[:top]
        scores, places = scores[order], places[order]
    return list(zip(names_of(path, places.tolist()), scores.tolist(), strict=True))


def picture_path(file: Path | str, name: str) -> str:
    """Where a picture or clip of a features file is, as seen from the working folder; its name
    alone if it is not there any more or the file does not say where its pictures lie."""
    root = read_facts(file).get("root")
    name, _ = name_and_span(name)
    if root is None:
        return name
    path = Path(os.path.normpath(Path(file).parent / root / name))
    return str(path) if path.exists() else name


def when(name: str) -> str:
    """When in a video a piece of it is, such as " 1:05 to 1:15"; nothing of what is whole."""
    _, span = name_and_span(name)
    if span is None:
        return ""
    return " to ".join(f"{int(t) // 60}:{int(t) % 60:02d}" for t in span)


def check_model(path: Path | str, model: OpenModel, *, pictures: bool) -> None:
    """Whether queries of this model can be compared with the features in a file.

    Args:
        pictures: the query is a picture, so the preprocessing matters too.

    Raises:
        BrokenInput: the file is missing or damaged, or of another model or preprocessing.
    """
    facts = read_facts(path)
    if facts["weights_hash"] not in (model.weights_hash, model.pictures_as):
        raise BrokenInput(
            f"{path} was made with another model: {facts['model']} (weights "
            f"{facts['weights_hash'][:16]}), not {model.name} ({model.weights_hash[:16]}). "
            "Give the one it was made with by --run or --model, or embed again."
        )
    if pictures and facts["preprocessing"] != model.preprocessing:
        raise BrokenInput(
            f"{path} was made with other preprocessing than {model.name} has: embed again."
        )


def encode_query(model: OpenModel, query: str | Path) -> Tensor:
    """The feature [dim], unit norm, of a text, or of the picture at a path.

    Raises:
        BrokenInput: the picture cannot be read.
    """
    if isinstance(query, str):
        return model.runtime.encode_text(model.tokenizer([query]))[0]
    pixels = model.preprocess(Pictures(query.parent, [query.name]).read(0))
    return model.runtime.encode_image(pixels[None])[0]


def query_of(
    model: OpenModel, text: str | None, image: Path | None, weight: float | None = None
) -> Tensor:
    """The feature [dim], unit norm, of a text or a picture; of both, of that picture with what the
    text says changed: by the model's own query, where it makes such, else (1 - w) picture + w text,
    normalised.

    Args:
        weight: of the text beside a picture, from 0 to 1, for this sum with any model; None: 0.5
            where the model makes no queries.

    Raises:
        BrokenInput: the picture cannot be read.
        ValueError: there is neither.
    """
    if text is not None and image is not None and weight is None and model.query is not None:
        pixels = model.preprocess(Pictures(image.parent, [image.name]).read(0))
        tokens = model.tokenizer([asked(model.query, text)])
        runtime: Any = model.runtime
        own: Tensor = runtime.encode_query(pixels[None], tokens)[0]
        return own
    found = [encode_query(model, part) for part in (image, text) if part is not None]
    if not found:
        raise ValueError("a query is a text, a picture, or both")
    weight = TEXT_WEIGHT if weight is None else weight
    return found[0] if len(found) == 1 else summed_query(found[0], found[1], weight)
