"""Class probabilities of pictures: softmax over classes of logit scale times cosine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from radapter.classes import distinct
from radapter.data.clip_pieces import Pieces
from radapter.data.pairs import templates_of
from radapter.data.pictures import Pictures
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation import cache as caching
from radapter.evaluation.cache import Cache
from radapter.evaluation.encoding import encode_batches
from radapter.heads import zero_shot
from radapter.heads.head import Head
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel


@dataclass(frozen=True)
class Prediction:
    """The classes of one picture, or the reason why it has none."""

    picture: str
    labels: list[tuple[str, float]]
    """(class, probability), the likeliest first"""
    error: str | None = None


def read_class_names(path: Path | str) -> list[str]:
    """Class names from a text file, one a line; empty lines count for nothing.

    Raises:
        BrokenInput: it is missing, empty, no text, or names a class twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise BrokenInput(f"No such file of class names: {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path} is not a text file of class names: {error}") from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = " ".join(line.split())
        if name and seen.setdefault(name, number) != number:
            raise BrokenInput(f"{path}:{number}: '{name}' is named in line {seen[name]} already.")
    if not seen:
        raise BrokenInput(f"{path} names no classes: write one a line.")
    return list(seen)


def classes_for(
    model: OpenModel, names: Sequence[str] | None, templates: Sequence[str] | None = None
) -> Mapping[str, Any]:
    """The classes to choose from: `names` with `prompts` for each, or with text `features`, or with
    the trained `head` that knows them.

    Args:
        names: one's own; None: those that the model was trained on, with their own prompts.
        templates: prompts with `{}` for the name (`["openai"]` are open_clip's 80); None: the
            model's.

    Raises:
        UsageError: no names, and the model has none; a template without exactly one `{}`.
    """
    if templates is None and model.head is not None:
        trained = model.head if names is None else model.head.among(list(names))
        if trained is not None:
            return {"names": list(trained.names), "head": trained}
    if names is None:
        if model.classes is None:
            raise UsageError(
                f"{model.name} has no trained classes: name those to choose from, one a line in a "
                "file, by --classes names.txt"
            )
        if templates is None:
            return model.classes
        names = model.classes["names"]
    chosen = model.templates if templates is None else list(templates)
    texts = templates_of("openai" if chosen == ["openai"] else chosen)
    wrong = next((text for text in texts if text.count("{}") != 1), None)
    if wrong is not None:
        raise UsageError(f"A template needs exactly one {{}} for the class name, found '{wrong}'.")
    return zero_shot.prompts_of(names, texts)


def head(model: OpenModel, classes: Mapping[str, Any], cache: Cache | None = None) -> Head:
    """What tells classes apart, those of one name being one; features of prompts are looked for and
    kept in the cache, those of engines never."""
    if "head" in classes:
        trained: Head = classes["head"]
        return trained

    def encode(model: OpenModel, texts: Sequence[str]) -> Tensor:
        key = None if cache is None else caching.texts_key(model.runtime, model.tokenizer, texts)
        return caching.get_or_compute(cache, key, lambda: zero_shot.encode_texts(model, texts))

    return zero_shot.head(model, distinct(classes), encode)


def predict(
    model: OpenModel,
    pictures: Pictures | Pieces,
    classes: Mapping[str, Any],
    *,
    top: int = 5,
    cache: Cache | None = None,
) -> Iterator[Prediction]:
    """The likeliest classes of every picture, in order, one batch in memory at a time.

    A clip is one picture here. A picture that cannot be read gives a prediction with its `error`
    and no labels. Classes of one name are one. Features of prompts are kept in `cache`; None:
    nowhere.
    """
    chosen = head(model, classes, cache)
    names = chosen.names
    top = min(top, len(names))
    paths = [str(pictures.root / key) for key in pictures.keys]
    size = max(1, BATCH // pictures.frames)
    for batch in encode_batches(
        model.runtime, model.preprocess, pictures.read, range(len(paths)), batch_size=size
    ):
        found = {i: Prediction(paths[i], [], error) for i, error in batch.failed.items()}
        if batch.indices:
            logits = chosen.logits(batch.features).double()
            # A stable sort, so that equal classes come in the order of their names' file.
            shares, order = logits.softmax(1).sort(dim=1, descending=True, stable=True)
            for i, share, row in zip(batch.indices, shares[:, :top], order[:, :top], strict=True):
                labels = [(names[c], float(s)) for c, s in zip(row, share, strict=True)]
                found[i] = Prediction(paths[i], labels)
        yield from (found[i] for i in sorted(found))
