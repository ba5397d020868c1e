"""MV-Adapter (Jin et al., CVPR 2024): a video adapter and a text adapter behind the MLP of every
block; in the image tower it mixes the frames of a clip.

    x + y + s * A(y),    y = MLP(LN x)

    video    h = q(D y + b); c_t the class token's h in frame t, p_t the mean of the patches' h
             [w', c', p'] = q(T(LN([w, c_1.., p_1..] + places)))    T: a transformer block, width r
             a_t = 1 + B relu(A [c'_t + p'_t, G w' + g] + e)         B zero at first
             A(y) = U (a_t * c'_t) + u for the class token, U h + u for each patch
    text     A(y) = U q(T(LN(D y + b + places))) + u,  T attending to what stands before
    tying    in the last layers the rows of D are scaled by F m + f, m being the same in both towers

q(x) = x sigmoid(1.702 x), as CLIP's; U and u are zero at first. A clip's feature is the mean of its
frames' features, each of unit norm. Nothing of it folds into a weight: there is no `merge`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from pydantic import Field
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.methods.blocks import residual_blocks, tower_of
from radapter.methods.branches import Branch, beside_mlp, holding, like
from radapter.models.frames import Clip, see_clips
from radapter.models.text import text_tower
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rank": 4, "scale": 1.0, "frames": 4},
    {"rank": 4, "scale": 1.0, "factors": "random", "average": Average(momentum=0.9)},
    {"rank": 4, "scale": 1.0, "frames": 3, "towers": "image"},
    {"rank": 4, "scale": 1.0, "towers": "text"},
    {"rank": 4, "scale": 1.0, "tied": 0},
)
HEADS, SHARED, CALIBRATION, PLACES = 2, 32, 4, 0.01
"""Heads of T, dimensions of m, what of r the calibration has (a fourth), deviation of places"""


class Block(nn.Module):
    """T: a transformer block, [..., tokens, r] -> the same.

    Args:
        of: the width of the tower, which says how large weights are at first.
    """

    def __init__(self, width: int, of: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.enter, self.leave = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.quick_gelu = QuickGELU()
        nn.init.normal_(self.queries.weight, std=of**-0.5)
        for layer in (self.out, self.enter, self.leave):
            nn.init.normal_(layer.weight, std=(2 * of) ** -0.5)
        for layer in (self.queries, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """mask: whom each token attends to, bool, for [batch, heads, tokens, tokens]."""
        parts = self.queries(self.norm_1(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        added: Tensor = self.leave(self.quick_gelu(self.enter(self.norm_2(x))))
        return x + added


class Temporal(nn.Module):
    """Class tokens [clips, frames, r], means of patches alike and which frames are there
    [clips, frames] -> class tokens and means with each other in view, and w' [clips, r]."""

    def __init__(self, width: int, frames: int, of: int) -> None:
        super().__init__()
        self.whole = nn.Parameter(width**-0.5 * torch.randn(width))
        self.places = nn.Parameter(PLACES * torch.randn(1 + 2 * frames, width))
        self.norm, self.block, self.quick_gelu = nn.LayerNorm(width), Block(width, of), QuickGELU()

    def forward(
        self, classes: Tensor, means: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        clips, number = there.shape
        most = len(self.places) // 2
        # Places of means begin behind those of the most frames, so a short clip is the same alone
        # and beside longer ones.
        taken = [self.places[: 1 + number], self.places[1 + most : 1 + most + number]]
        x = torch.cat([self.whole.expand(clips, 1, -1), classes, means], dim=1) + torch.cat(taken)
        whole = torch.ones(clips, 1, dtype=torch.bool, device=there.device)
        seen = torch.cat([whole, there, there], dim=1)[:, None, None]
        x = self.quick_gelu(self.block(self.norm(x), seen))
        return x[:, 1 : 1 + number], x[:, 1 + number :], x[:, 0]


class Calibration(nn.Module):
    """c' + p' [clips, frames, r] and w' [clips, r] -> the factors a, [clips, frames, r]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_whole = nn.Linear(width, width)
        self.down = nn.Linear(2 * width, max(1, width // CALIBRATION))
        self.up = nn.Linear(max(1, width // CALIBRATION), width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, whole: Tensor) -> Tensor:
        both = torch.cat([x, self.of_whole(whole)[:, None].expand_as(x)], dim=-1)
        factors: Tensor = 1 + self.up(torch.relu(self.down(both)))
        return factors


class Words(nn.Module):
    """D y + b [texts, length, r] -> the same, each token with those before it in view."""

    def __init__(self, width: int, length: int, of: int) -> None:
        super().__init__()
        self.places = nn.Parameter(PLACES * torch.randn(length, width))
        self.norm, self.block, self.quick_gelu = nn.LayerNorm(width), Block(width, of), QuickGELU()

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        changed: Tensor = self.quick_gelu(self.block(self.norm(x + self.places[:length]), before))
        return changed


class Factor(nn.Module):
    """m, which both towers share."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(SHARED))


class Adapter(Branch):
    """D with the rows scaled, and U; what stands between is the tower's own.

    Args:
        parts: `down` and `up`; `factor` and `tie`, which makes the rows' scale of it, or neither.
    """

    down: nn.Linear
    up: nn.Linear
    tie: nn.Linear
    factor: Factor

    def __init__(self, parts: dict[str, Any], scale: float) -> None:
        super().__init__(scale, parts["up"].weight.detach())
        for name, part in parts.items():
            self.add_module(name, part)

    def lowered(self, x: Tensor) -> Tensor:
        weight = self.down.weight
        if "tie" in self._modules:
            weight = self.tie(self.factor.m)[:, None] * weight
        return F.linear(x, weight, self.down.bias)


class VideoAdapter(Adapter):
    """Rows of a tower [rows, tokens, width], the class token first, that are frames of clips."""

    temporal: Temporal
    calibration: Calibration

    def __init__(self, parts: dict[str, Any], scale: float, clip: Clip) -> None:
        super().__init__(parts, scale)
        self.clip, self.quick_gelu = clip, QuickGELU()

    def change(self, x: Tensor) -> Tensor:
        there = self.clip.frames_there(x.shape[0], x.device)
        h = self.quick_gelu(self.lowered(x))
        classes, patches = h[:, 0], h[:, 1:]
        means = patches.mean(dim=1).unflatten(0, there.shape)
        c, p, whole = self.temporal(classes.unflatten(0, there.shape), means, there)
        first = self.calibration(c + p, whole) * c
        first = first.flatten(0, 1)[:, None].to(patches.dtype)
        changed: Tensor = self.up(torch.cat([first, patches], dim=1))
        return changed


class TextAdapter(Adapter):
    """Texts [texts, length, width]."""

    words: Words

    def change(self, x: Tensor) -> Tensor:
        changed: Tensor = self.up(self.words(self.lowered(x)))
        return changed


def attach(
    model: nn.Module,
    *,
    rank: Annotated[int, Field(ge=2, multiple_of=2)] = 64,
    towers: Towers = "both",
    frames: Count = 12,
    scale: float = 0.1,
    tied: Annotated[int, Field(ge=0)] = 2,
    factors: Literal["random", "ones"] = "ones",
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and add adapters to its blocks, with which it takes clips.

    Args:
        model: an open_clip model.
        rank: the width r of every adapter, even.
        towers: which towers are trained: "both", "image" or "text".
        frames: the most frames of a clip that it takes; those of the data are to fit. A picture is
            a clip of one frame.
        scale: the factor s of what an adapter adds; it is not trained.
        tied: in how many last layers both towers share a factor, where both are trained.
        factors: what the rows of D are scaled by at first there. `ones`: by one. `random`: as in
            the released code by what a linear layer has for biases at random, some -0.18 to 0.18.
        average: moving average of the adapters' weights, what is kept after training; off by
            default.

    Raises:
        UsageError: a tower without such blocks; an image tower without a class token; a text tower
            that is not causal.
    """
    model.requires_grad_(False)
    trained = ("image", "text") if towers == "both" else (towers,)
    blocks = residual_blocks(model, towers, "mv-adapter")
    clip = Clip(frames)
    if "image" in trained:
        _check_class_token(model)
    length = _length(model) if "text" in trained else 0
    if "image" in trained:
        see_clips(model, clip)
    shared = [Factor() for _ in range(tied if towers == "both" else 0)]
    parts: dict[str, nn.Module] = {f"factor.{n}": factor for n, factor in enumerate(shared)}
    adapters: list[Adapter] = []
    for tower in trained:
        own = [block for block in blocks if tower_of(model, block.name) == tower]
        # The last block has the last factor, and so on; the first ones have none.
        for number, block in enumerate(own, len(shared) - len(own)):
            weight, image = like(block), tower == "image"
            width = weight.shape[1]
            modules = _bottleneck(rank, width, image)
            if image:
                modules |= {"temporal": Temporal(rank, frames, width)}
                modules |= {"calibration": Calibration(rank)}
            else:
                modules |= {"words": Words(rank, length, width)}
            if number >= 0:
                modules |= {"tie": _tie(rank, factors)}
            parts |= {f"{block.name}.mv.{kind}": module for kind, module in modules.items()}
            if number >= 0:
                modules |= {"factor": shared[number]}
            for module in modules.values():  # drawn on the CPU: the start is the same on any device
                module.to(weight.device, weight.dtype)
            adapter = VideoAdapter(modules, scale, clip) if image else TextAdapter(modules, scale)
            beside_mlp(block, adapter, "mv-adapter", reads="output")
            adapters.append(adapter)
    return Attached(model, parts, holding(parts, adapters), average, towers=trained)


def _bottleneck(rank: int, width: int, image: bool) -> dict[str, nn.Module]:
    down, up = nn.Linear(width, rank), nn.Linear(rank, width)
    if not image:  # there torch's own start is the published one
        nn.init.normal_(down.weight, std=(2 * width) ** -0.5)
    for start in (down.bias, up.weight, up.bias):
        nn.init.zeros_(start)
    return {"down": down, "up": up}


def _tie(rank: int, factors: str) -> nn.Linear:
    """F and f."""
    tie = nn.Linear(SHARED, rank)
    if factors == "ones":
        nn.init.ones_(tie.bias)
    return tie


def _check_class_token(model: nn.Module) -> None:
    visual: Any = model.visual
    if getattr(visual, "class_embedding", None) is not None:
        return
    trunk = getattr(visual, "trunk", visual)
    if getattr(trunk, "cls_token", None) is None or getattr(trunk, "num_prefix_tokens", 0) != 1:
        raise UsageError(
            "mv-adapter reads the class token of the image tower, and that of this model, a "
            f"{type(trunk).__name__}, has none: use method.name=uniadapter or method.name=full."
        )


def _length(model: nn.Module) -> int:
    """The most tokens that the text tower reads; of CoCa one more than a text has, its class token.

    Raises:
        UsageError: the tower is not causal, as the adapters are.
    """
    tower = text_tower(model)
    if getattr(tower, "attn_mask", None) is None:
        raise UsageError(
            "mv-adapter needs a causal text tower of open_clip's own code, and this one is a "
            f"{type(tower).__name__}: use method.towers=image."
        )
    return len(tower.positional_embedding)
