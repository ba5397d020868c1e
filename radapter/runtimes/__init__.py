"""What computes features: PyTorch or an exported engine, behind one interface.

Evaluation sees only `Runtime`, so every suite runs on every runtime. Import the one that is
needed: `radapter.runtimes.pytorch`, `.onnx`, `.trt.runtime`, or `.engines` for one by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Items encoded together. Fixed: the last bits of features depend on it"""


class Runtime(Protocol):
    """A pair of towers ready to run. Both take and give tensors on the CPU."""

    name: str
    device: str
    precision: str
    provenance: dict[str, Any]
    """Where the weights come from (`weights_hash`) and what really serves."""
    logit_scale: float
    """What cosines are multiplied by to become logits; already exponentiated."""
    frames: int | None
    """The most of a clip that a model of clips takes; None: a model of pictures, whose mean of
    frames is of any number"""
    identity: dict[str, Any] | None
    """All that the bits of its features depend on, as plain data: features of an equal one may be
    used again. None: each is to be computed, as an engine's are while it is being verified"""

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> features [n, dim], float32, unit norm."""
        ...

    def encode_video(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width], float, a frame that a clip lacks being NaN ->
        features [n, dim], float32, unit norm."""
        ...

    def encode_frames(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width] -> features of their frames [n, frames, dim],
        float32, unit norm: those that `encode_video` is the mean of. What stands for a frame that a
        clip lacks means nothing."""
        ...

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [n, length <= context], int64 -> features [n, dim], float32, unit norm."""
        ...


__all__ = ["BATCH", "Runtime"]
