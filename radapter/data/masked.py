"""A region of a picture as a picture of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np


def masked(picture: Image.Image, region: np.ndarray, paint: Sequence[int]) -> Image.Image:
    """A region in the middle of a square, all around it painted over.

    Args:
        picture: RGB.
        region: bool [height, width], of one pixel at least.
        paint: red, green and blue, 0 to 255.
    """
    import numpy as np  # here, as recipes are checked without it

    pixels = np.asarray(picture).copy()
    pixels[~region] = paint
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    cut = Image.fromarray(pixels[top : rows[-1] + 1, left : columns[-1] + 1])
    square = Image.new("RGB", (max(cut.size),) * 2, tuple(paint))
    square.paste(cut, ((square.width - cut.width) // 2, (square.height - cut.height) // 2))
    return square
