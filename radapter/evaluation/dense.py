"""The class of every pixel of a picture: by patches, windows or regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from radapter.data.masked import masked
from radapter.errors import UsageError
from radapter.evaluation.suite_dataset import Dense
from radapter.runtimes import BATCH, Runtime
from radapter.runtimes.opened import OpenModel

STEPS = {"values": 2, "windows": 4}
"""Windows move by this part of their side"""
FLOATS = 2**26
"""Cosines of pixels that are held, 256 MB"""


def named(
    model: OpenModel,
    classes: Tensor,
    picture: Image.Image,
    dense: Dense,
    regions: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each pixel of a picture by its cosines to all, int64 [height, width], -1 outside
    of all regions, and the probability of it, float32, 0 there.

    Classes are looked at a few at a time, with cosines of pixels for `FLOATS` of these, or for one
    class: all 847 of ADE20K's full set would take 13.6 GB in a picture of 2,000 x 2,000.

    Args:
        classes: their text features, unit norm [classes, dim].
        picture: RGB.
        dense: how pixels get a class.
        regions: bool [height, width] each, for `regions`; of several the last one counts.

    Raises:
        UsageError: the image tower has no patch features, or windows are not square.
    """
    if dense.by == "regions":
        return _by_regions(model, classes, picture, regions or ())
    side = _side(model)
    resized = _resized(picture, side, dense.short_side)
    windows = _windows(model, resized, side, dense)
    area = max(picture.width * picture.height, resized.width * resized.height)
    some = max(1, FLOATS // area)
    best = torch.full((picture.height, picture.width), -math.inf)
    label, total = torch.zeros(best.shape, dtype=torch.int64), torch.zeros(best.shape)
    for start in range(0, len(classes), some):
        found = _averaged(windows, classes[start : start + some], resized, side, dense)
        if resized.size != picture.size:
            found = F.interpolate(
                found[None], tuple(best.shape), mode="bilinear", align_corners=False
            )[0]
        top, own = found.max(dim=0)
        higher = torch.maximum(best, top)
        # The sum of exponentials, of the largest so far.
        total *= (model.runtime.logit_scale * (best - higher)).exp_()
        for cosines in found:
            total += (model.runtime.logit_scale * (cosines - higher)).exp_()
        label[top > best] = own[top > best] + start
        best = higher
    known = best.isfinite()  # an engine may give what is no number
    return label.where(known, -1).numpy(), (1 / total).where(known, 0.0).numpy()


Windows = list[tuple[int, int, Tensor]]
"""Left and top of each, and its feature [dim] or those of its patches [rows, columns, dim]"""


def _windows(model: OpenModel, resized: Image.Image, side: int, dense: Dense) -> Windows:
    width, height = resized.size
    step = max(1, side // STEPS[dense.by])
    corners = [(x, y) for y in positions(height, side, step) for x in positions(width, side, step)]
    runtime: Any = model.runtime
    encode = runtime.encode_patches if dense.by == "values" else runtime.encode_image
    found: Windows = []
    for start in range(0, len(corners), BATCH):
        some = corners[start : start + BATCH]
        crops = [resized.crop((x, y, x + side, y + side)) for x, y in some]
        features = encode(torch.stack([model.preprocess(crop) for crop in crops]))
        found += [(x, y, own) for (x, y), own in zip(some, features, strict=True)]
    return found


def _averaged(
    windows: Windows, classes: Tensor, resized: Image.Image, side: int, dense: Dense
) -> Tensor:
    """The mean cosines of pixels over the windows that they are in, [classes, height, width]."""
    by_patches = dense.by == "values"
    hill = torch.ones(side, side) if by_patches else _hill(side)
    total = torch.zeros(len(classes), resized.height, resized.width)
    weight = torch.zeros(resized.height, resized.width)
    for x, y, features in windows:
        cosines = features @ classes.T
        if by_patches:
            maps = cosines.permute(2, 0, 1)[None]
            maps = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[0]
        else:
            maps = cosines[:, None, None]
        total[:, y : y + side, x : x + side] += maps * hill
        weight[y : y + side, x : x + side] += hill
    return total.div_(weight)


def lacks_patches(runtime: Runtime, dense: Dense) -> bool:
    """Whether pixels are to be named by patches, and an engine has no file for their features."""
    return dense.by == "values" and not getattr(runtime, "makes_patches", False)


def positions(length: int, side: int, step: int) -> list[int]:
    """Where windows begin: every `step` pixels, and one that ends where the picture does."""
    return sorted({*range(0, length - side + 1, step), length - side})


def _by_regions(
    model: OpenModel, classes: Tensor, picture: Image.Image, regions: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    label = np.full((picture.height, picture.width), -1, dtype=np.int64)
    sure = np.zeros(label.shape, dtype=np.float32)
    regions = [region for region in regions if region.any()]
    paint = [round(255 * value) for value in model.preprocessing["mean"]]
    crops = [masked(picture, region, paint) for region in regions]
    for start in range(0, len(crops), BATCH):
        some = crops[start : start + BATCH]
        pixels = torch.stack([model.preprocess(crop) for crop in some])
        cosines = model.runtime.encode_image(pixels) @ classes.T
        likely, own = (model.runtime.logit_scale * cosines).softmax(dim=1).max(dim=1)
        for region, name, share in zip(
            regions[start:], own.tolist(), likely.tolist(), strict=False
        ):
            label[region], sure[region] = (-1, 0.0) if math.isnan(share) else (name, share)
    return label, sure


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
