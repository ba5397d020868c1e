"""Motions of a picture, in pairs of which one is the other backwards.

A motion is the same frames as its opposite in the opposite order. What looks at frames without
their order, as their mean does, cannot tell the two apart: it is right half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image

Axis = Literal["x", "y", "turn", "zoom", "fade"]
SHIFT = 14 / 64
"""How far a picture moves to either side, as a share of its own"""
TURN, ZOOM, FAINT = 30.0, 1.6, 0.2
"""Degrees to either side; the largest size; the smallest opacity"""


@dataclass(frozen=True)
class Motion:
    """One of the ten."""

    words: str
    """After the name of what moves"""
    axis: Axis
    forward: bool
    """Its opposite has the other value"""


MOTIONS = (
    Motion("moving to the right", "x", True),
    Motion("moving to the left", "x", False),
    Motion("moving down", "y", True),
    Motion("moving up", "y", False),
    Motion("turning clockwise", "turn", True),
    Motion("turning counterclockwise", "turn", False),
    Motion("coming closer", "zoom", True),
    Motion("moving away", "zoom", False),
    Motion("appearing", "fade", True),
    Motion("disappearing", "fade", False),
)
"""The opposite of each even one is the next"""


def opposite(number: int) -> int:
    """The number of the motion that is this one backwards."""
    return number ^ 1


def frame(picture: Image.Image, axis: Axis, share: float) -> Image.Image:
    """A picture on white as it is after a share, from 0 to 1, of the forward motion."""
    width, height = picture.size
    way = 2 * share - 1
    if axis in ("x", "y"):
        offset = round(way * SHIFT * width), round(way * SHIFT * height)
        moved = Image.new("RGB", picture.size, "white")
        moved.paste(picture, (offset[0], 0) if axis == "x" else (0, offset[1]))
        return moved
    if axis == "turn":
        return picture.rotate(-way * TURN, Image.Resampling.BICUBIC, fillcolor="white")
    if axis == "fade":
        white = Image.new("RGB", picture.size, "white")
        return Image.blend(white, picture, FAINT + (1 - FAINT) * share)
    size = 1 + (ZOOM - 1) * share
    left, top = (width - width / size) / 2, (height - height / size) / 2
    box = (left, top, width - left, height - top)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box)


def frames(picture: Image.Image, motion: Motion, number: int, phase: int = 0) -> list[Image.Image]:
    """A clip of so many frames.

    Args:
        phase: how many frames of the motion have gone by when the clip starts; it goes on from the
            beginning when it comes to the end.
    """
    made = [frame(picture, motion.axis, place / max(1, number - 1)) for place in range(number)]
    order = range(number) if motion.forward else range(number - 1, -1, -1)
    return [made[order[(phase + k) % number]] for k in range(number)]
