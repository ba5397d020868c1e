"""Queries with what two models found, and pictures with the names that they gave to pixels, in rows
of four pictures. Pictures are shown only of data that may be passed on; of other data, names."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from radapter.data import Dataset
from radapter.data.scored import mask_of
from radapter.errors import BrokenInput, RadapterError
from radapter.evaluation.answers import data_set, unpacked
from radapter.evaluation.shown import drawn
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.reporting.report.gallery import GONE, NOT_PASSED_ON, Gallery, not_opened

EACH = 4
"""Queries of each direction on each data set"""
OVER = 0.65
"""How much of a pixel is the colour of its class; the rest is the picture in grey"""
TURN = 0.618034
"""From one class's hue to the next one's"""
Colour = tuple[int, int, int]
Credited = Callable[[str], tuple[Path, set[str]] | None]


@dataclass(frozen=True)
class Frame:
    """One picture of a row."""

    title: str
    text: str
    right: bool | None
    """Whether it is a right answer; None: it is none"""
    name: str
    picture: str | None
    """A data address; None: only its name is shown"""


@dataclass(frozen=True)
class Strip:
    """A row."""

    said: str
    frames: list[Frame]
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Colours, as CSS has them, and what they are"""


@dataclass(frozen=True)
class Strips:
    """The rows of one data set."""

    dataset: str
    said: str
    groups: list[tuple[str, list[Strip]]]
    why_names: str = ""
    """Why there are names alone"""


def strips(gallery: Gallery, answers: dict[str, Any]) -> list[Strips]:
    """What was found, and the names of pixels, from the content of an answers file."""
    labels = answers["before"], answers["after"]
    found = [_searched(gallery, n, of, labels) for n, of in answers.get("searched", {}).items()]
    return found + [_named(gallery, n, of, labels) for n, of in answers.get("named", {}).items()]


# ---------------------------------------------------------------- queries


def _searched(
    gallery: Gallery, name: str, facts: dict[str, Any], labels: tuple[str, str]
) -> Strips:
    credited, dataset, why = _opened(facts)
    place = {key: i for i, key in enumerate(dataset.keys)} if dataset else {}
    titles = [f"{label}, {way}" if way else label for label, way in zip(labels, facts["ways"],
                                                                       strict=True)]  # fmt: skip
    groups: list[tuple[str, list[Strip]]] = []
    for way, title in (
        ("lost", f"Lost: {labels[0]} finds a right picture first, {labels[1]} a wrong one"),
        ("gained", f"Gained: {labels[0]} finds a wrong picture first, {labels[1]} a right one"),
    ):
        rows = []
        for query, said, right, before, after, was, now in drawn(
            facts[way], EACH, [f"{row[0]} {row[1]}" for row in facts[way]]
        ):
            frames = []
            for key, head, text, good in (
                (query, "query", None, None),
                (right, "right answer", f"rank {was} → {now}", None),
                (before, titles[0], None, was == 1),
                (after, titles[1], None, now == 1),
            ):
                picture = gallery.picture(dataset, place.get(key), credited)
                words = text or _words(dataset, place.get(key))
                frames.append(Frame(head, words, good, key, picture))
            rows.append(Strip(said, frames))
        groups.append((title, rows))
    shown = [frame for _, rows in groups for row in rows for frame in row.frames]
    if not why and any(frame.picture is None for frame in shown):
        why = GONE
    counts = f"{len(facts['lost']):,} lost, {len(facts['gained']):,} gained"
    said = f"of {facts['queries']:,} queries {counts}"
    return Strips(name, said, groups, why)


def _words(dataset: Dataset | None, place: int | None) -> str:
    """The class of a picture, or its first caption."""
    if dataset is None or place is None:
        return ""
    if dataset.labels:
        return dataset.class_names[dataset.labels[place]]
    return dataset.captions[place][0] if dataset.captions and dataset.captions[place] else ""


# ---------------------------------------------------------------- pixels


def _named(gallery: Gallery, name: str, facts: dict[str, Any], labels: tuple[str, str]) -> Strips:
    credited, dataset, why = _opened(facts)
    place = {key: i for i, key in enumerate(dataset.keys)} if dataset else {}
    rows = []
    for key, was, now in facts["maps"]:
        if dataset is not None and key in place:
            try:
                strip = _of_pixels(gallery, dataset, place[key], (was, now), labels, credited)
            except RadapterError:
                continue
            rows.append(strip)
    if not why and len(rows) < len(facts["maps"]):
        why = GONE
    said = f"the names of pixels in {len(facts['maps'])} pictures"
    return Strips(name, said, [("Pixels that have a class, in its colour", rows)], why)


def _of_pixels(
    gallery: Gallery,
    dataset: Dataset,
    place: int,
    maps: Sequence[str],
    labels: Sequence[str],
    credited: Credited,
) -> Strip:
    mask = mask_of(dataset, place, dataset.read(place))
    found = [unpacked(packed) for packed in maps]
    if any(numbers.shape != mask.shape for numbers in found):
        raise BrokenInput(f"{dataset.keys[place]} is not the picture that was scored.")
    named = [np.where(mask > 0, numbers, 0) for numbers in found]
    there = [int(n) for n in np.unique(np.stack([mask, *named])) if n > 0]
    frames = [Frame("picture", "", None, dataset.keys[place],
                    gallery.picture(dataset, place, credited))]  # fmt: skip
    for title, numbers in zip(("true classes", *labels), (mask, *named), strict=True):
        change = functools.partial(painted, numbers=numbers)
        text = ""
        if title != "true classes":
            text = f"{(numbers == mask)[mask > 0].mean():.0%} of pixels right"
        picture = gallery.picture(dataset, place, credited, change)
        frames.append(Frame(title, text, None, dataset.keys[place], picture))
    legend = [(_css(colour_of(n)), dataset.class_names[n - 1]) for n in there]
    return Strip("", frames, legend)


def painted(picture: Image.Image, numbers: np.ndarray) -> Image.Image:
    """A picture in grey, with the colours of classes over the pixels that have one.

    Args:
        numbers: 0 or less for no class, int [height, width].
    """
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float32)
    for number in np.unique(numbers[numbers > 0]):
        chosen = numbers == number
        grey[chosen] = (1 - OVER) * grey[chosen] + OVER * np.array(colour_of(int(number)))
    return Image.fromarray(grey.round().astype(np.uint8))


def colour_of(number: int) -> Colour:
    """Neighbouring numbers have hues far apart."""
    red, green, blue = colorsys.hls_to_rgb(TURN * number % 1.0, 0.35 + 0.15 * (number % 3), 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


# ---------------------------------------------------------------- data


def _opened(facts: dict[str, Any]) -> tuple[Credited, Dataset | None, str]:
    """Whose work a picture is, and the data set, if its pictures may be shown; else why not."""
    try:
        sections = SuiteDataset.model_validate(facts["set"]).all_data()
        if not all(data.may_be_passed_on for data in sections):
            return _nobody, None, NOT_PASSED_ON
        if len({data.notices for data in sections}) > 1:
            return _nobody, None, "Names alone: these are pictures of several built-in sets."
        return sections[0].credited, data_set(facts["set"], facts["task"]), ""
    except (RadapterError, ValueError, KeyError) as error:
        return _nobody, None, not_opened(error)


def _nobody(key: str) -> None:
    """Nothing says whose work it is."""
