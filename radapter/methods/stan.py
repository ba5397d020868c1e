"""STAN (Liu et al., CVPR 2023): a branch beside the last blocks of the image tower, in which the
frames of a clip see each other.

Block l gives in frame t a class token c_t and patches p_t. The branch's layer beside it has a copy
of the block, and one class token for all frames:

    [d, q_1 .. q_T] = the layer's output before, plus [mean_t c_t, p_1 .. p_T]
    first layer       [d, q_t] = [(mean_t c_t + e + E_0) / 2, p_t + E + F_t]
    time              q <- q + V A(LN q) + v,     A: each patch attends to itself in other frames
    space             [d, q_t] <- [d, q_t] + copied attention in frame t; of d the mean over frames
                      [d, q_t] <- [d, q_t] + copied MLP

e and E are the tower's own embeddings of the class and of places, F those of time. V and v are zero
at first, so that A changes nothing. The last layer's d is added to the class token of every frame
behind the last block. A clip's feature is the mean of its frames' features, each of unit norm.
Nothing of it folds into a weight: there is no `merge`.
"""

from __future__ import annotations

import copy
import functools
from typing import Annotated, Any, Literal, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.methods.batch_rows import bernoulli_of_rows
from radapter.methods.branches import Branch, holding_both
from radapter.methods.full import weights_of
from radapter.models.frames import Clip, see_clips
from radapter.registry import Average, Count, Positive, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"depth": 2, "frames": 4, "towers": "none", "drop": 0.0},
    {"depth": 1, "frames": 3, "average": Average(momentum=0.9)},
    {"depth": 2, "towers": "image", "places": "random", "drop": 0.3},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({},)
"""Training never starts at the zero-shot model: the branch's copies say something at once"""


class Time(nn.Module):
    """Patches [clips, frames, patches, width] and which frames are there [clips, frames] -> what is
    added to the patches."""

    def __init__(self, width: int, heads: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        for parameter in self.attention.parameters():  # as linear layers have them
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        self.last = nn.Linear(width, width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, patches: Tensor, there: Tensor) -> Tensor:
        number = patches.shape[2]
        x = self.norm(patches.transpose(1, 2).flatten(0, 1))
        hidden = ~there.repeat_interleave(number, dim=0)
        x, _ = self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)
        if self.training and self.drop:
            x = _kept(self.drop, there, number, x).flatten()[:, None, None] * x
        added: Tensor = self.last(x).unflatten(0, (-1, number)).transpose(1, 2)
        return added


class Layer(nn.Module):
    """One class token and the patches of all frames, [clips, 1 + frames * patches, width], and
    which frames are there [clips, frames] -> the same, with each other in view."""

    def __init__(self, block: ResidualAttentionBlock, drop: float) -> None:
        super().__init__()
        weight, self.drop = block.mlp.c_fc.weight, drop
        time = Time(weight.shape[1], block.attn.num_heads, drop)
        # Drawn on the CPU: the start is the same on any device.
        self.time = time.to(weight.device, weight.dtype)
        self.space = copy.deepcopy(block)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        whole, patches = x[:, :1], x[:, 1:].unflatten(1, (there.shape[1], -1))
        patches = patches + self.time(patches, there)
        in_frames = whole[:, None].expand(-1, there.shape[1], -1, -1)
        block, tokens = self.space, torch.cat([in_frames, patches], dim=2).flatten(0, 1)
        added = block.ls_1(block.attention(block.ln_1(tokens))).unflatten(0, there.shape)
        if self.training and self.drop:
            added = _kept(self.drop, there, there.shape[1], added)[:, :, None, None] * added
        x = torch.cat([whole, patches.flatten(1, 2)], dim=1) + one_class_token(added, there)
        found: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
        return found


class SideBranch(Branch):
    """The output of the last layer -> what is added to the class token of each frame, [clips *
    frames, width]."""

    def __init__(self, layers: list[Layer], places: Tensor, clip: Clip) -> None:
        super().__init__(1.0, places)
        self.layers, self.places, self.clip = nn.ModuleList(layers), nn.Parameter(places), clip

    def begin(self, x: Tensor, frames: int, whole: Tensor, spots: Tensor) -> Tensor:
        """What the first layer reads: x [clips, 1 + frames * patches, width] with the embeddings
        of the class [width], of places [1 + patches, width] and of time."""
        first = (x[:, :1] + whole.to(x.dtype) + spots[:1].to(x.dtype)) / 2
        places = (spots[1:] + self.places[:frames, None]).flatten(0, 1)
        return torch.cat([first, x[:, 1:] + places.to(x.dtype)], dim=1)

    def change(self, x: Tensor) -> Tensor:
        frames = 1 if self.clip.there is None else self.clip.there.shape[1]
        return x[:, 0].repeat_interleave(frames, dim=0)


class _WithBranch:
    """In front of the class of an open_clip ViT."""

    def forward(self: Any, x: Tensor) -> Any:
        """Pictures or frames [rows, 3, height, width] -> features [rows, dim]."""
        x, branch = self._embeds(x), self.stan
        there = branch.clip.frames_there(x.shape[0], x.device)
        run = _run
        if self.transformer.grad_checkpointing and torch.is_grad_enabled():
            run = functools.partial(checkpoint, use_reentrant=False)
        blocks, beside = self.transformer.resblocks, None
        for number, block in enumerate(blocks, len(branch.layers) - len(blocks)):
            x = run(block, x)
            if number < 0:
                continue
            read = one_class_token(x.unflatten(0, there.shape), there)
            if beside is None:
                places = self.class_embedding, self.positional_embedding
                read = branch.begin(read, there.shape[1], *places)
            else:
                read = beside + read
            beside = run(branch.layers[number], read, there)
        x = torch.cat([(x[:, 0] + branch(beside))[:, None], x[:, 1:]], dim=1)
        pooled, tokens = self._pool(x)
        pooled = pooled if self.proj is None else pooled @ self.proj
        return (pooled, tokens) if self.output_tokens else pooled


def _run(module: nn.Module, *inputs: Tensor) -> Tensor:
    found: Tensor = module(*inputs)
    return found


def one_class_token(x: Tensor, there: Tensor) -> Tensor:
    """Tokens [clips, frames, 1 + patches, width] -> [clips, 1 + frames * patches, width]: the mean
    of the class tokens of the frames that are there, and all patches."""
    shares = (there / there.sum(dim=1, keepdim=True)).to(x.dtype)
    whole = (shares[:, :, None] * x[:, :, 0]).sum(dim=1, keepdim=True)
    return torch.cat([whole, x[:, :, 1:].flatten(1, 2)], dim=1)


def _kept(drop: float, there: Tensor, number: int, like: Tensor) -> Tensor:
    """Of each clip so many draws, [clips, number]: 0 with the probability `drop`, else 1 / (1 -
    drop)."""
    rows = like.new_empty(there.numel(), number)
    draws = bernoulli_of_rows(rows, 1.0 - drop, elements=True)
    return draws.unflatten(0, there.shape)[:, 0] / (1.0 - drop)


def attach(
    model: nn.Module,
    *,
    depth: Count = 4,
    frames: Count = 12,
    towers: Literal["both", "image", "text", "none"] = "both",
    rate: Positive = 0.1,
    places: Literal["zeros", "random"] = "zeros",
    drop: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Put a branch beside the last blocks of the image tower, with which a model takes clips.

    Args:
        model: an open_clip model.
        depth: how many last blocks have a layer of the branch beside them.
        frames: the most frames of a clip that it takes; those of the data are to fit. A picture is
            a clip of one frame.
        towers: the towers whose own weights are trained too: "both", as published, "image", "text"
            or "none", which leaves them as they are.
        rate: the learning rate of these weights, as a share of that of the branch, which is
            `optimisation.lr`.
        places: the embeddings of time at first. `zeros`: training starts with a model that does not
            see the order of frames. `random`: as in the released code from a normal distribution of
            deviation one, so that it does.
        drop: how often a training step leaves out what attention adds, in the last layer; in those
            before it linearly less, and in the first never. One draw is for a patch in all frames,
            in attention over time; for a frame, in that over space.
        average: moving average of what is trained, what is kept after training; off by default.

    Raises:
        UsageError: the image tower is of another kind, or has fewer blocks.
    """
    model.requires_grad_(False)
    blocks = _last_blocks(model, depth)
    own = {} if towers == "none" else weights_of(model, cast(Towers, towers))
    clip, visual, weight = Clip(frames), cast(Any, model.visual), blocks[0].mlp.c_fc.weight
    of_time = torch.zeros(frames, weight.shape[1])
    if places == "random":
        nn.init.normal_(of_time)
    rates = [drop * k / max(1, depth - 1) for k in range(depth)]
    layers = [Layer(block, share) for block, share in zip(blocks, rates, strict=True)]
    branch = SideBranch(layers, of_time.to(weight.device, weight.dtype), clip).requires_grad_(True)
    visual.stan = branch.train(model.training)
    # A class and not a method of the object, so that a copy of the model runs its own branch.
    visual.__class__ = type(type(visual).__name__, (_WithBranch, type(visual)), {})
    see_clips(model, clip)
    for parameter in own.values():
        parameter.requires_grad_(True)
    added: dict[str, nn.Module] = {"visual.stan": branch}
    hold = holding_both(added, [branch], own, lambda: attached.start)
    parts: dict[str, Any] = {**own, **added}
    attached = Attached(model, parts, hold, average, rates=dict.fromkeys(own, rate))
    return attached


def _last_blocks(model: nn.Module, depth: int) -> list[ResidualAttentionBlock]:
    """Those of the image tower.

    Raises:
        UsageError: it is no ViT of open_clip's own code that reads all patches and is read at its
            class token; or it has fewer blocks.
    """
    visual = model.visual
    found: list[Any] = []
    if isinstance(visual, VisionTransformer):
        whole = visual.attn_pool is None and visual.pool_type == "tok"
        if whole and isinstance(visual.patch_dropout, nn.Identity):
            found = list(visual.transformer.resblocks)
    if not found or any(type(block) is not ResidualAttentionBlock for block in found):
        kind = type(getattr(visual, "trunk", visual)).__name__
        raise UsageError(
            "stan needs a ViT of open_clip's own code that reads all patches and is read at its "
            f"class token, and the image tower of this model, a {kind}, is another: use "
            "method.name=mv-adapter or method.name=full."
        )
    if len(found) < depth:
        raise UsageError(
            f"method.depth is {depth}, and the image tower has {len(found)} blocks: give "
            f"method.depth={len(found)} or less."
        )
    return found[-depth:]
