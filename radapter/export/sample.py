"""A sample of the training data: what int8 is calibrated on, and what exported files are run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from radapter.data import open_data
from radapter.data.clips import frames_of
from radapter.data.pairs import Pairs
from radapter.recipe import Recipe

SIZE, CLIPS = 128, 16


@dataclass(frozen=True)
class Sample:
    """Pictures, each with a text as in training; of a clip, its middle frame."""

    pictures: Sequence[Image.Image]
    texts: Sequence[str]
    keys: Sequence[str] = ()
    """The pictures' names in their data set"""
    clips: Sequence[Sequence[Image.Image]] = ()
    """The first `CLIPS` of them with all their frames; a picture is one frame"""


def training_sample(recipe: Recipe, size: int = SIZE) -> Sample:
    """Pairs of a recipe's training data, drawn by its seed; pictures that are broken are not drawn.

    Raises:
        BrokenInput: the data is not there.
    """
    settings: Any = recipe.data
    pairs = Pairs(
        open_data(settings), settings, lambda picture: picture, recipe.seed,
        mix_captions=recipe.mix_captions,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(recipe.seed)
    pictures: list[Image.Image] = []
    texts: list[str] = []
    keys: list[str] = []
    clips: list[Sequence[Image.Image]] = []
    for item in torch.randperm(len(pairs), generator=generator).tolist():
        pair = pairs[0, item]
        if "broken" in pair:
            continue
        frames = frames_of(pair["image"])
        clips += [frames] if len(clips) < CLIPS else []
        pictures.append(frames[len(frames) // 2])
        texts.append(pair["text"])
        keys.append(pairs.dataset.keys[pairs.items[item][0]])
        if len(pictures) == size:
            break
    return Sample(pictures, texts, keys, clips)
