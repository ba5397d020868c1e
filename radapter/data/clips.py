"""Clips: which frames are taken of one, and how frames become one tensor.

An item of a data set is a picture, or a clip: a list of its frames. Frames are drawn from segments
of equal length (TSN, Wang et al. 2016): a random one of each for training, the middle one for
evaluation. A clip with fewer frames gives all it has.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from PIL import Image
from pydantic import Field

from radapter.data.settings import Data

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Item = Image.Image | list[Image.Image]
"""A picture, or the frames of a clip"""
View = Literal["clip", "first-frame", "shuffled"]


class ClipData(Data):
    """Clips with their texts or classes."""

    frames: Annotated[int, Field(ge=1, le=512)] = 12
    """How many frames are taken of a clip: one of each of so many segments of equal length. A clip
    that has fewer gives all its frames."""
    view: View = "clip"
    """What is seen of a clip. `clip`: its frames. The others show what a score owes to time.
    `first-frame`: the first of them alone. `shuffled`: the same frames in another order, which is
    always the same one."""

    def drawn_anew(self, draw: T) -> T | None:
        """What training reads by: `draw`, which takes other frames each time; None, without random
        changes to what is trained on."""
        return None if self.augmentation is None else draw

    def read_like(self, trained: Data) -> Data:
        """With as many frames: a model of clips takes no more than in training."""
        if not isinstance(trained, ClipData):
            return self
        return self.model_copy(update={"frames": trained.frames})

    def with_missing(self) -> Data:
        """Whatever number of them."""
        return self.model_copy(update={"broken_images": sys.maxsize})

    def controls(self) -> dict[str, Data]:
        """What a score owes to time: the first frame alone, and the frames in another order."""
        views = [view for view in get_args(View) if view != "clip"]
        return {view: self.model_copy(update={"view": view}) for view in views}

    def clip_facts(self) -> dict[str, str]:
        """What results say of the frames."""
        return {"frames": f"{self.frames} at most, of equal segments", "view": self.view}


def shares(frames: int, chance: bool = False) -> list[float]:
    """Where the frame of each segment lies, as shares of the clip, from 0 to 1.

    Args:
        chance: at random in its segment, by torch's generator; else in its middle.
    """
    if not chance:
        return [(k + 0.5) / frames for k in range(frames)]
    import torch  # here, as recipes are checked without it

    return [(k + share) / frames for k, share in enumerate(torch.rand(frames).tolist())]


def places(count: int, taken: Sequence[float]) -> list[int]:
    """The numbers of the frames, of `count`, that lie at these shares of a clip; all of them, if
    they are no more."""
    if count <= len(taken):
        return list(range(count))
    return [min(int(share * count), count - 1) for share in taken]


def seen(frames: Sequence[T], view: View, name: str) -> list[T]:
    """Of a clip's frames, or their numbers, those that a view shows, in its order.

    Args:
        name: of the clip, which the order of `shuffled` follows from. It is not the clip's own
            order, if it has several frames.
    """
    if view == "first-frame":
        return list(frames[:1])
    order = list(range(len(frames)))
    if view == "shuffled" and len(frames) > 1:
        chance = random.Random(name)
        while order == sorted(order):
            chance.shuffle(order)
    return [frames[place] for place in order]


# ---------------------------------------------------------------- items


def frames_of(item: Item) -> list[Image.Image]:
    """The frames of a clip; of a picture, itself."""
    return item if isinstance(item, list) else [item]


def prepared(preprocess: Callable[[Image.Image], Tensor], item: Item) -> Tensor:
    """[3, height, width] of a picture, [frames, 3, height, width] of a clip."""
    import torch

    if isinstance(item, list):
        return torch.stack([preprocess(frame) for frame in item])
    return preprocess(item)


def stacked(items: Sequence[Tensor | list[Tensor]]) -> Tensor:
    """Pictures as [n, 3, height, width], clips as [n, frames, 3, height, width]; among clips a
    picture is a clip of one frame.

    The frames that the shorter clips lack stand last: NaN among floats; of bytes, which become
    16-bit integers then, -1.
    """
    import torch
    from torch.utils.data import default_collate

    tensors = [torch.stack(item) if isinstance(item, list) else item for item in items]
    if any(tensor.dim() == 4 for tensor in tensors):
        tensors = [tensor if tensor.dim() == 4 else tensor[None] for tensor in tensors]
    if tensors[0].dim() == 4 and len({len(clip) for clip in tensors}) > 1:
        most = max(map(len, tensors))
        blank: Any = torch.nan
        if not tensors[0].is_floating_point():
            tensors, blank = [clip.to(torch.int16) for clip in tensors], -1
        tensors = [
            torch.cat([clip, clip.new_full((most - len(clip), *clip.shape[1:]), blank)])
            for clip in tensors
        ]
    # torch's own stacks in shared memory, where a worker does it: a copy less.
    found: Tensor = default_collate(tensors)
    return found
