"""A picture of what a shift looks like: things in several styles, and what models say of each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from radapter.reporting.plots import pyplot_to_file, write


@dataclass(frozen=True)
class Row:
    """One thing in several styles, and what the models say of each picture."""

    title: str
    pictures: list[Image.Image]
    answers: list[list[tuple[str, bool]]]
    """For each picture, for each model: the answer and whether it is right"""


def shift_table(
    rows: Sequence[Row], styles: Sequence[str], models: Sequence[str], path: Path
) -> None:
    """Draw rows of pictures, a column a style, the models' answers under each, as a PNG.

    A right answer has a tick and is bold, so it does not take colour to see it.
    """
    plt = pyplot_to_file()
    height = 1.15 + 0.19 * len(models)
    figure, axes = plt.subplots(
        len(rows), len(styles) + 1, figsize=(1.5 * len(styles) + 1.3, height * len(rows) + 0.4)
    )
    for row, line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        below = {"transform": line[0].transAxes, "fontsize": 7.5, "va": "top"}
        title = "\n".join(textwrap.fill(part, 19) for part in row.title.split("\n"))
        place = line[0].transAxes
        line[0].text(0.0, 1.0, title, transform=place, fontsize=9, weight="bold", va="top")
        for i, model in enumerate(models):
            line[0].text(0.0, -0.05 - 0.19 * i, f"{model}:", **below)
        for style, axis, picture, answers in zip(
            styles, line[1:], row.pictures, row.answers, strict=True
        ):
            axis.imshow(picture, interpolation="nearest")
            if row is rows[0]:
                axis.set_title(style.replace("fluent-emoji", "fluent"), fontsize=8.5)
            for i, (answer, right) in enumerate(answers):
                axis.text(
                    0.5,
                    -0.05 - 0.19 * i,
                    ("✓ " if right else "✗ ") + answer,
                    transform=axis.transAxes,
                    fontsize=7.5,
                    ha="center",
                    va="top",
                    weight="bold" if right else "normal",
                    color="#0072B2" if right else "0.35",
                )
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.35 / figure.get_figheight(), bottom=0.09, hspace=0.85
    )
    write(figure, path)
