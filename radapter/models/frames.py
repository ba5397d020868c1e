"""Clips [n, frames, 3, height, width] through a model, a frame that a clip lacks being NaN.

A model of pictures has no `encode_video`: a clip is the mean of its frames. A model of clips has
one, and `encode_frames`, which gives what this is the mean of. `see_clips` makes one of a model of
pictures into whose tower a method has put modules that look at several frames; a picture is then a
clip of one frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radapter.errors import UsageError


def video_features(model: Any, clips: Tensor) -> Tensor:
    """Features [n, dim], float32, unit norm, of clips [n, frames, 3, height, width].

    Args:
        model: a model or runtime, of clips or of pictures.
    """
    if not hasattr(model, "encode_video"):
        return mean_of_frames(model.encode_image, clips)
    features: Tensor = model.encode_video(clips)
    return features


def mean_of_frames(encode: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """Features [n, dim], float32, unit norm: of each clip the mean of its frames' unit-norm
    features (CLIP4Clip's `meanP`, Luo et al. 2021).

    Args:
        encode: pictures [n, 3, height, width] -> features [n, dim].
        clips: [n, frames, 3, height, width]; frames of NaN are none; each clip has one at least.
    """
    features = each_frame(encode, clips)
    return F.normalize((features * which_frames(clips)[:, :, None]).sum(dim=1), dim=-1)


def each_frame(encode: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """Features [n, frames, dim], float32, unit norm, of every frame of clips [n, frames, 3, height,
    width]; what stands for a frame that is none means nothing.

    Args:
        encode: pictures [n, 3, height, width] -> features [n, dim].
    """
    features = encode(clips.nan_to_num(0.0).flatten(0, 1))
    return F.normalize(features.float(), dim=-1).unflatten(0, clips.shape[:2])


def which_frames(clips: Tensor) -> Tensor:
    """Which frames of clips [n, frames, ...] are there, [n, frames], bool."""
    return ~clips.flatten(2)[:, :, 0].isnan()


class Clip:
    """What modules inside an image tower know of the clips whose frames are its rows.

    Args:
        frames: the most of a clip.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.there: Tensor | None = None
        """As it was in the last forward pass, which may be computed again for the backward pass;
        None: pictures"""

    def __deepcopy__(self, memo: Any) -> Clip:
        return Clip(self.frames)

    def frames_there(self, rows: int, device: torch.device) -> Tensor:
        """[clips, frames], bool: the tower's rows are these frames, clip after clip."""
        if self.there is None:
            return torch.ones(rows, 1, dtype=torch.bool, device=device)
        return self.there


def see_clips(model: nn.Module, clip: Clip) -> None:
    """Give a model of pictures `encode_video`: it tells `clip` which frames are there, and takes
    the mean of the features that the tower gives for them."""
    model.clip = clip  # type: ignore[assignment]
    # A class and not a method of the object, so that a copy of the model runs its own modules.
    model.__class__ = type(type(model).__name__, (_OfClips, type(model)), {})


class _OfClips:
    """In front of the class of an open_clip model."""

    def encode_video(self: Any, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width] -> features [n, dim], float32, unit norm.

        Raises:
            UsageError: they have more frames than it takes.
        """
        return mean_of_frames(self._in(clips), clips)

    def encode_frames(self: Any, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width] -> features of their frames, each with the others of
        its clip in view: [n, frames, dim], float32, unit norm, as `each_frame` has them.

        Raises:
            UsageError: they have more frames than it takes.
        """
        return each_frame(self._in(clips), clips)

    def _in(self: Any, clips: Tensor) -> Callable[[Tensor], Tensor]:
        """What encodes all frames of these clips."""
        check_frames(clips.shape[1], self.clip.frames)
        self.clip.there = which_frames(clips)
        encode: Callable[[Tensor], Tensor] = super().encode_image  # type: ignore[misc]
        return encode

    def encode_image(self: Any, image: Tensor, normalize: bool = False) -> Tensor:
        self.clip.there = None
        features: Tensor = super().encode_image(image, normalize=normalize)  # type: ignore[misc]
        return features


def check_frames(number: int, most: int) -> None:
    """Raise UsageError if clips have more frames than a model takes."""
    if number > most:
        raise UsageError(
            f"This model takes clips of up to {most} frames (method.frames), and these have "
            f"{number}: give fewer by --frames or data.frames, or train with "
            f"method.frames={number}."
        )


def without_frames(runtime: str) -> UsageError:
    """Why an exported model of clips has no `encode_frames`."""
    return UsageError(
        f"{runtime} has no features of single frames, since the exported file for clips gives one "
        "feature a clip: score `match` in a suite with --runtime torch."
    )


def filled_up(clips: Tensor, frames: int) -> Tensor:
    """Clips with places for so many frames, as an exported file takes them.

    Raises:
        UsageError: they have more.
    """
    check_frames(clips.shape[1], frames)
    return F.pad(clips, (0, 0, 0, 0, 0, 0, 0, frames - clips.shape[1]), value=torch.nan)


def most_frames(model: nn.Module) -> int | None:
    """The most frames of a clip that a model of clips takes; None: a model of pictures."""
    clip: Clip | None = getattr(model, "clip", None)
    return None if clip is None else clip.frames
