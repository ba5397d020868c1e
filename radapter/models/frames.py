"""Clips through a model of pictures: the mean of their frames."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def mean_of_frames(encode: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """Features [n, dim], float32, unit norm: of each clip the mean of its frames' unit-norm
    features (CLIP4Clip's `meanP`, Luo et al. 2021).

    Args:
        encode: pictures [n, 3, height, width] -> features [n, dim].
        clips: [n, frames, 3, height, width]; frames of NaN are none; each clip has one at least.
    """
    there = ~clips[:, :, 0, 0, 0].isnan()
    features = encode(clips.nan_to_num(0.0).flatten(0, 1))
    features = F.normalize(features.float(), dim=-1).unflatten(0, clips.shape[:2])
    return F.normalize((features * there[:, :, None]).sum(dim=1), dim=-1)
