"""A GRU (Cho et al., EMNLP 2014) over the features of a clip's frames, behind the frozen image
tower: what `seqLSTM` of CLIP4Clip (Luo et al., 2021) does with an LSTM.

    x_t + |x_t| (U h_t + u),    h_t = GRU(LN x_t, h_t-1),    h_0 = 0

x_t is what the image tower gives for frame t; U and u are zero at first. A clip's feature is the
mean of its frames' features, each of unit norm. Nothing of it folds into a weight: there is no
`merge`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from radapter.methods.attached import Attached
from radapter.methods.branches import Branch, feature_width, holding_both, linear
from radapter.methods.full import weights_of
from radapter.models import joint
from radapter.models.frames import Clip, see_clips
from radapter.registry import Average, Count, Positive

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"width": 8, "frames": 4},
    {"width": 8, "frames": 3, "towers": "none"},
    {"width": 8, "frames": 3, "average": Average(momentum=0.9)},
)


class Recurrent(Branch):
    """Features of frames [clips * frames, dim], as the tower gives them -> what is added to them.

    Frames that a clip lacks stand last, so the others do not see them.
    """

    def __init__(self, like: Tensor, width: int, clip: Clip) -> None:
        super().__init__(1.0, like)
        dim = like.shape[-1]
        # Drawn on the CPU: the start is the same on any device.
        self.gru = nn.GRU(dim, width, batch_first=True, device="cpu").to(like.device, like.dtype)
        self.up = linear(width, dim, like)
        nn.init.zeros_(self.up.weight)
        self.clip = clip

    def change(self, x: Tensor) -> Tensor:
        there = self.clip.frames_there(x.shape[0], x.device)
        read = F.layer_norm(x.float(), x.shape[-1:]).to(self.up.weight.dtype)
        states, _ = self.gru(read.unflatten(0, there.shape))
        added: Tensor = self.up(states).flatten(0, 1)
        return x.norm(dim=-1, keepdim=True) * added


def attach(
    model: nn.Module,
    *,
    width: Count = 128,
    frames: Count = 12,
    towers: Literal["text", "none"] = "text",
    rate: Positive = 0.1,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze the image tower and put a GRU behind it, with which a model takes clips.

    Args:
        model: an open_clip model.
        width: the dimensions of h.
        frames: the most frames of a clip that it takes; those of the data are to fit. A picture is
            a clip of one frame.
        towers: whether the text tower's own weights are trained too, "text", or "none" is.
        rate: the learning rate of these weights, as a share of that of the GRU, which is
            `optimisation.lr`.
        average: moving average of what is trained, what is kept after training; off by default.
    """
    model.requires_grad_(False)
    own = {} if towers == "none" else weights_of(model, towers)
    weight, clip = next(model.visual.parameters()), Clip(frames)  # type: ignore[union-attr]
    branch = Recurrent(weight.new_empty(1, feature_width(model)), width, clip)
    joint.put_behind(model, branch.train(model.training), ("image",))
    see_clips(model, clip)
    for parameter in own.values():
        parameter.requires_grad_(True)
    added: dict[str, nn.Module] = {"gru": branch.gru, "up": branch.up}
    hold = holding_both(added, [branch], own, lambda: attached.start)
    parts: dict[str, Any] = {**own, **added}
    rates = dict.fromkeys(own, rate)
    attached = Attached(model, parts, hold, average, towers=("image",), rates=rates)
    attached.behind = True
    return attached
