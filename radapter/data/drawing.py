"""Drawings put into pictures: ink, ground, size, place and turn, by chance.

Every choice is made with the numbers of one `random.Random`, of which only `random()` is asked: so
it is a function of the seed, the same with every version of Python. `scene` also gives each
drawing's coverage in the finished picture, from which exact masks can be made.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes: TypeAlias = NDArray[np.uint8]
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
LEAST_CONTRAST = 70.0
"""Difference in brightness, of 255, between a ground and what is drawn on it"""
TRIES = 8
"""Colours that are drawn until one has that contrast; then it is black or white"""
CLOUD = 45
"""How far the colours of a clouded ground are from its mean, of 255"""
CELL = 0.5
"""The largest size of a drawing that is not alone, as a share of the picture's side"""


@dataclass(frozen=True)
class Drawing:
    """One drawing, before it is in a picture."""

    coverage: Bytes
    """[height, width]: 0 where nothing is drawn, 255 where nothing shows through"""
    colours: Bytes | None = None
    """[height, width, 3]; None: of one colour, which is the ink's"""


@dataclass(frozen=True)
class Style:
    """What may be done to drawings. By default nothing: black on white, in full size."""

    size: int = 64
    """Side of the finished picture in pixels"""
    coloured: float = 0.0
    """Probability that the ink, or the ground, is not black on white"""
    clouds: float = 0.0
    """Of the grounds that are not white, the share that is no plain colour"""
    smallest: float = 1.0
    """Smallest size of a drawing, as a share of the picture's side; the largest is 1"""
    turn: float = 0.0
    """Largest turn, in degrees"""


@dataclass(frozen=True)
class Scene:
    """A finished picture."""

    picture: Image.Image
    """RGB"""
    coverages: list[Bytes] = field(default_factory=list)
    """Of each drawing, [size, size], as far as later ones do not hide it"""


def scene(
    drawings: Sequence[Drawing], chance: random.Random, style: Style, *, masks: bool = False
) -> Scene:
    """One to four drawings in a picture; several stand beside each other, in cells of two by two.

    Args:
        masks: whether coverages are wanted as well.
    """
    import numpy as np  # here, as recipes are checked without it

    inked = [_mean_colour(drawing) for drawing in drawings]
    coloured = chance.random() < style.coloured
    ground, mean = _ground(chance, style, [c for c in inked if c], coloured=coloured)
    cells = _shuffled(chance) if len(drawings) > 1 else [None]
    coverages: list[Bytes] = []
    for drawing, cell in zip(drawings, cells, strict=False):
        plain = drawing.colours is None
        ink = _unlike(chance, [mean]) if plain and (coloured or mean != WHITE) else (0, 0, 0)
        layer, place = _placed(drawing, chance, style, cell)
        own = layer if plain else layer.getchannel("A")
        ground.paste(ink if plain else layer.convert("RGB"), place, own)
        if masks:
            mask = Image.new("L", (style.size, style.size))
            mask.paste(own, place)
            coverage = np.asarray(mask)
            rest = 255 - coverage.astype(np.uint16)
            coverages = [(other * rest // 255).astype(np.uint8) for other in coverages]
            coverages.append(coverage)
    return Scene(ground, coverages)


def _placed(
    drawing: Drawing, chance: random.Random, style: Style, cell: tuple[int, int] | None
) -> tuple[Image.Image, tuple[int, int]]:
    """The drawing turned and made smaller, and where its upper left corner goes."""
    import numpy as np  # here, as recipes are checked without it

    if drawing.colours is None:
        layer = Image.fromarray(drawing.coverage)
    else:
        layer = Image.fromarray(np.dstack([drawing.colours, drawing.coverage]), "RGBA")
    angle = (2 * chance.random() - 1) * style.turn
    if angle:
        layer = layer.rotate(angle, Image.Resampling.BILINEAR)
    if cell is None:
        share = style.smallest + (1 - style.smallest) * chance.random()
        room, corner = style.size, (0, 0)
    else:
        smallest = min(style.smallest, CELL)
        share = smallest + (CELL - smallest) * chance.random()
        room = style.size // 2
        corner = (cell[0] * room, cell[1] * room)
    side = max(1, min(room, round(share * style.size)))
    if layer.size != (side, side):
        layer = layer.resize((side, side), Image.Resampling.BILINEAR)
    free = room - side + 1
    x, y = (c + int(free * chance.random()) for c in corner)
    return layer, (x, y)


# ---------------------------------------------------------------- colours


def _ground(
    chance: random.Random, style: Style, on_it: Sequence[Colour], *, coloured: bool
) -> tuple[Image.Image, Colour]:
    """A ground that the colours `on_it` can be seen on, and its mean colour."""
    import numpy as np  # here, as recipes are checked without it

    size = (style.size, style.size)
    if not coloured:
        return Image.new("RGB", size, WHITE), WHITE
    mean = _unlike(chance, on_it)
    if chance.random() >= style.clouds:
        return Image.new("RGB", size, mean), mean
    number = 2 + int(3 * chance.random())
    values = [
        min(255, max(0, round(part + CLOUD * (2 * chance.random() - 1))))
        for _ in range(number * number)
        for part in mean
    ]
    few = Image.fromarray(np.array(values, np.uint8).reshape(number, number, 3))
    return few.resize(size, Image.Resampling.BICUBIC), mean


def _unlike(chance: random.Random, others: Sequence[Colour]) -> Colour:
    """A colour that is lighter or darker than each of the others, by enough to tell it."""
    bright = [_brightness(other) for other in others]
    for _ in range(TRIES):
        colour = (
            int(256 * chance.random()),
            int(256 * chance.random()),
            int(256 * chance.random()),
        )
        if all(abs(_brightness(colour) - b) >= LEAST_CONTRAST for b in bright):
            return colour
    return (0, 0, 0) if sum(bright) > 127.5 * len(bright) else WHITE


def _brightness(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _mean_colour(drawing: Drawing) -> Colour | None:
    """Of what is drawn; None if that takes the ink's colour."""
    import numpy as np  # here, as recipes are checked without it

    if drawing.colours is None:
        return None
    weights = drawing.coverage.astype(np.float32).ravel()
    total = float(weights.sum())
    if not total:
        return WHITE
    red, green, blue = weights @ drawing.colours.reshape(-1, 3).astype(np.float32) / total
    return int(red), int(green), int(blue)


def _shuffled(chance: random.Random) -> list[tuple[int, int] | None]:
    """The four cells in random order."""
    cells: list[tuple[int, int] | None] = [(0, 0), (1, 0), (0, 1), (1, 1)]
    for last in range(3, 0, -1):
        other = int((last + 1) * chance.random())
        cells[last], cells[other] = cells[other], cells[last]
    return cells
