"""The similarity of every pixel of a picture to every class: by patches, windows or regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from radapter.errors import UsageError
from radapter.evaluation.suite_dataset import Dense
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel

STEPS = {"values": 2, "windows": 4}
"""Windows move by this part of their side"""


def similarities(
    model: OpenModel,
    classes: Tensor,
    picture: Image.Image,
    dense: Dense,
    regions: Sequence[np.ndarray] | None = None,
) -> Tensor:
    """[classes, height, width] of a picture, cosines; -inf outside of all regions.

    Args:
        classes: their text features, unit norm [classes, dim].
        picture: RGB.
        dense: how pixels get a class.
        regions: bool [height, width] each, for `regions`; of several the last one counts.

    Raises:
        UsageError: the model has no patch features.
    """
    if dense.by == "regions":
        return _by_regions(model, classes, picture, regions or ())
    side = _side(model)
    resized = _resized(picture, side, dense.short_side)
    width, height = resized.size
    corners = [
        (x, y)
        for y in positions(height, side, max(1, side // STEPS[dense.by]))
        for x in positions(width, side, max(1, side // STEPS[dense.by]))
    ]
    total = torch.zeros(len(classes), height, width)
    weight = torch.zeros(height, width)
    hill = torch.ones(side, side) if dense.by == "values" else _hill(side)
    encode = _patches(model, side) if dense.by == "values" else _wholes(model)
    for start in range(0, len(corners), BATCH):
        some = corners[start : start + BATCH]
        crops = [resized.crop((x, y, x + side, y + side)) for x, y in some]
        pixels = torch.stack([model.preprocess(crop) for crop in crops])
        for (x, y), found in zip(some, encode(pixels, classes), strict=True):
            total[:, y : y + side, x : x + side] += found * hill
            weight[y : y + side, x : x + side] += hill
    total /= weight
    if resized.size == picture.size:
        return total
    size = (picture.height, picture.width)
    return F.interpolate(total[None], size, mode="bilinear", align_corners=False)[0]


def positions(length: int, side: int, step: int) -> list[int]:
    """Where windows begin: every `step` pixels, and one that ends where the picture does."""
    return sorted({*range(0, length - side + 1, step), length - side})


def masked(picture: Image.Image, region: np.ndarray, paint: Sequence[int]) -> Image.Image:
    """A region in the middle of a square, all around it painted over."""
    pixels = np.asarray(picture).copy()
    pixels[~region] = paint
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    cut = Image.fromarray(pixels[top : rows[-1] + 1, left : columns[-1] + 1])
    square = Image.new("RGB", (max(cut.size),) * 2, tuple(paint))
    square.paste(cut, ((square.width - cut.width) // 2, (square.height - cut.height) // 2))
    return square


def _by_regions(
    model: OpenModel, classes: Tensor, picture: Image.Image, regions: Sequence[np.ndarray]
) -> Tensor:
    found = torch.full((len(classes), picture.height, picture.width), -math.inf)
    regions = [region for region in regions if region.any()]
    paint = [round(255 * value) for value in model.preprocessing["mean"]]
    crops = [masked(picture, region, paint) for region in regions]
    for start in range(0, len(crops), BATCH):
        some = crops[start : start + BATCH]
        pixels = torch.stack([model.preprocess(crop) for crop in some])
        cosines = model.runtime.encode_image(pixels) @ classes.T
        for region, own in zip(regions[start : start + BATCH], cosines, strict=True):
            found[:, torch.from_numpy(region)] = own[:, None]
    return found


Encode = Callable[[Tensor, Tensor], Tensor]
"""Pixels of windows and the classes -> [windows, classes, side, side], or [..., 1, 1]"""


def _wholes(model: OpenModel) -> Encode:
    return lambda pixels, classes: (model.runtime.encode_image(pixels) @ classes.T)[
        :, :, None, None
    ]


def _patches(model: OpenModel, side: int) -> Encode:
    runtime: Any = model.runtime
    if not hasattr(runtime, "encode_patches"):
        raise UsageError(
            f"{runtime.name} has no patch features: score `dense: {{by: values}}` with --runtime "
            "torch."
        )

    def encode(pixels: Tensor, classes: Tensor) -> Tensor:
        cosines = (runtime.encode_patches(pixels) @ classes.T).permute(0, 3, 1, 2)
        return F.interpolate(cosines, (side, side), mode="bilinear", align_corners=False)

    return encode


def _side(model: OpenModel) -> int:
    size = model.preprocessing["size"]
    rows, columns = (size, size) if isinstance(size, int) else size
    if rows != columns:
        raise UsageError(
            f"{model.name} takes pictures of {rows} x {columns}, and windows are square."
        )
    return int(rows)


def _resized(picture: Image.Image, side: int, short_side: int | None) -> Image.Image:
    """No side shorter than a window's."""
    shorter = min(picture.size)
    wanted = max(side, short_side or shorter)
    if wanted == shorter:
        return picture
    size = [max(side, round(length * wanted / shorter)) for length in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _hill(side: int) -> Tensor:
    """Weights of a window's pixels: high in the middle, above 0 everywhere."""
    line = torch.hann_window(side + 2, periodic=False)[1:-1]
    return torch.outer(line, line)
