"""Models that have learned nothing, whose numbers stand beside those of the models of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter.errors import UsageError
from radapter.evaluation.suite import Suite
from radapter.models.frames import each_frame, mean_of_frames
from radapter.registry import TASKS, load
from radapter.runtimes.opened import OpenModel

SIDE = 16
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue, as ITU-R BT.601 has it"""


def beside(suite: Suite, model: OpenModel) -> list[OpenModel]:
    """Those that every task of the suite names, which see pictures as a model does."""
    named = [getattr(load(TASKS, task), "TRIVIAL", ()) for task in suite.tasks]
    kinds = [name for name in KINDS if all(name in own for own in named)]
    return [KINDS[name](name, model) for name in kinds]


def _raw_pixels(name: str, model: OpenModel) -> OpenModel:
    given = model.preprocessing
    runtime = RawPixels(given["mean"], given["std"])
    return OpenModel(name, runtime, model.tokenizer, model.preprocess, given)


KINDS = {"raw pixels": _raw_pixels}


class RawPixels:
    """Grey pictures of 16 x 16, less their mean, as features.

    Args:
        mean: of red, green and blue, which was taken off pictures.
        std: by which they were divided.
    """

    name = "16 x 16 grey"
    device = "cpu"
    precision = "fp32"
    logit_scale = 1.0
    frames: int | None = None

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.provenance: dict[str, Any] = {"weights_hash": "no weights"}
        self.identity: dict[str, Any] | None = {"raw pixels": SIDE, "torch": torch.__version__}
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> [n, 256], unit norm; 0 of one colour alone."""
        colours = pixel_values.float() * self._std[:, None, None] + self._mean[:, None, None]
        grey = (colours * torch.tensor(GREY)[:, None, None]).sum(dim=1)
        rows = F.adaptive_avg_pool2d(grey, SIDE).flatten(1)
        return F.normalize(rows - rows.mean(dim=1, keepdim=True), dim=-1)

    def encode_video(self, clips: Tensor) -> Tensor:
        """The mean of their frames."""
        return mean_of_frames(self.encode_image, clips)

    def encode_frames(self, clips: Tensor) -> Tensor:
        """Each frame by itself."""
        return each_frame(self.encode_image, clips)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Raise UsageError: no task that has this model reads texts."""
        raise UsageError(
            "Raw pixels have no features of texts: score them in tasks that read none, such as "
            "picture-retrieval."
        )
