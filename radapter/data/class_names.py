"""What classes are called, by the names of folders, labels or cells; which names are one class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from radapter.classes import key_of
from radapter.errors import BrokenInput


def class_name(folder: str) -> str:
    """The prompt's word for a class folder: `_` is a space.

    Raises:
        BrokenInput: the name is not UTF-8, so no text can be made of it.
    """
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise BrokenInput(
            f"The class folder {folder!r} has a name that is not UTF-8, so it cannot be put into "
            "a prompt: rename it."
        ) from None
    return folder.replace("_", " ")


def gathered(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct classes and the number of each name's, [names].

    Names that differ in nothing but case, spaces and the form of accents are one class, called by
    the first: CLIP reads the same text in them, so the two would share one probability.
    """
    classes: list[str] = []
    number: dict[str, int] = {}
    labels = []
    for name in names:
        key = key_of(name)
        if key not in number:
            number[key] = len(classes)
            classes.append(name)
        labels.append(number[key])
    return classes, labels


def classes_listed(
    texts: Mapping[str, Sequence[str]],
    path: object,
    kind: str,
    names: Callable[[Sequence[str]], Sequence[str]] = list,
) -> tuple[list[int], list[str], list[str]]:
    """The class of each item of a list, [items]; the classes; notes as of `joined_notes`.

    Args:
        texts: by item what the list says its class is, in each of its rows.
        path: of the list.
        kind: what an item is, "picture".
        names: from what the list says, each once, to the names of classes.

    Raises:
        BrokenInput: an item has several classes.
    """
    several = next((item for item, own in texts.items() if len(set(own)) > 1), None)
    if several is not None:
        raise BrokenInput(
            f"{path}: {several} has several classes. Classification takes one a {kind}."
        )
    spelled = sorted({own[0] for own in texts.values()})
    class_names, numbers = gathered(names(spelled))
    number = dict(zip(spelled, numbers, strict=True))
    labels = [number[own[0]] for own in texts.values()]
    return labels, class_names, joined_notes(spelled, numbers)


def joined_notes(sources: Sequence[str], labels: Sequence[int]) -> list[str]:
    """A line for every class that several sources (folders, spellings) were joined in.

    Args:
        labels: the class of each source, as `gathered` gives it.
    """
    of_class: dict[int, list[str]] = {}
    for source, label in zip(sources, labels, strict=True):
        of_class.setdefault(label, []).append(source)
    return [
        f"one class, as CLIP reads one text in them: {', '.join(map(repr, several))}"
        for several in of_class.values()
        if len(several) > 1
    ]
