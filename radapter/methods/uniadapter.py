"""UniAdapter (Lu et al., ICLR 2024): nonlinear adapters beside the MLP of every block, the down
projection of a layer being one for both towers.

    x + MLP(LN x) + s * (U relu(D h + b) + c),    U [width, r] and c zero at first

D [r, width] is the same matrix in the image and in the text tower. Where these have other widths, a
matrix E [r, width] of its own tower stands before D [r, r]: that form is ours. h is a LayerNorm of
the adapter's own of x, shared like D, as published; or the block's LN x, which is frozen.

`multimodal` adds those of cross-modal layers, which CoCa's text decoder has: a block of
self-attention, then one of cross-attention, each with its MLP. U and c are those of the text
tower's layer, V and d a third up projection.

    behind self-attention     x + MLP(LN x) + s * (U relu(D h + b) + c)
    behind cross-attention    x + MLP(LN x) + s * LN((V + U) relu(D h + b) + d + c)

A matching head reads the decoder's last token: see `models.matching`. A ReLU folds into no weight:
there is no `merge`, and the model is used with its adapters.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.methods.blocks import Block, decoder_layers, residual_blocks, tower_of
from radapter.methods.branches import Branch, beside_mlp, holding, like, linear
from radapter.models.matching import check_decoder
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"rank": 4, "scale": 1.0},
    {"rank": 2, "scale": 2.0, "average": Average(momentum=0.9)},
    {"towers": "image", "scale": 1.0},
    {"rank": 4, "scale": 1.0, "norm": "own"},
    {"rank": 4, "scale": 1.0, "norm": "own", "init": "upstream"},
)
ELSEWHERE: tuple[dict[str, Any], ...] = ({"init": "upstream"},)
"""Settings with which training does not start at the zero-shot model"""
WITH_DECODER: tuple[dict[str, Any], ...] = (
    {"rank": 4, "scale": 1.0, "multimodal": True},
    {"rank": 4, "scale": 1.0, "multimodal": True, "norm": "own"},
    {"rank": 4, "scale": 1.0, "multimodal": True, "norm": "own", "init": "upstream"},
)
"""Settings that tests of models with a text decoder go through"""


class Adapter(Branch):
    """h [..., width] -> what is added to the MLP's output, [..., width]."""

    def __init__(
        self, norm: nn.Module, enter: nn.Module, down: nn.Module, up: nn.Linear, scale: float
    ) -> None:
        super().__init__(scale, up.weight.detach())
        self.norm, self.enter, self.down, self.up = norm, enter, down, up

    def inside(self, x: Tensor) -> Tensor:
        """The bottleneck, [..., r]."""
        return torch.relu(self.down(self.enter(self.norm(x))))

    def change(self, x: Tensor) -> Tensor:
        return self.up(self.inside(x))


class MultimodalAdapter(Adapter):
    """That behind cross-attention.

    Args:
        of_texts: the adapter of the text tower's layer.
        up: the third up projection.
        behind: the norm of what is added.
    """

    def __init__(self, of_texts: Adapter, up: nn.Linear, behind: nn.LayerNorm) -> None:
        shared = of_texts.norm, of_texts.enter, of_texts.down
        super().__init__(*shared, up, of_texts.own)
        self.up_of_texts, self.norm_of_sum = of_texts.up, behind

    def change(self, x: Tensor) -> Tensor:
        inside = self.inside(x)
        return self.norm_of_sum(self.up(inside) + self.up_of_texts(inside))


def attach(
    model: nn.Module,
    *,
    rank: Count = 128,
    towers: Towers = "both",
    scale: float = 0.1,
    norm: Literal["block", "own"] = "block",
    init: Literal["zero", "upstream"] = "zero",
    multimodal: bool = False,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Freeze an open_clip model and add adapters to its blocks.

    Args:
        model: an open_clip model.
        rank: the width r of every adapter.
        towers: which towers are trained: "both", "image" or "text".
        scale: the factor s of what an adapter adds; it is not trained.
        norm: what an adapter reads. `own`: the residual stream through a trained LayerNorm, which
            both towers share where their widths agree, as published. `block`: what the MLP reads,
            behind the block's frozen norm.
        init: `zero`: training starts at the zero-shot model. `upstream`: as in the released code,
            up projections of the image tower and of cross-attention start at random, trunc-normal
            of 0.02, and those of the text tower at zero.
        multimodal: whether CoCa's text decoder gets adapters, too, and a matching head, which tells
            whether a text is of a picture; the term `image-text-matching` trains them.
        average: moving average of the adapters' weights, what is kept after training; off by
            default.

    Raises:
        UsageError: a tower without such blocks; `multimodal` for a model without a text decoder.
    """
    if multimodal:
        check_decoder(model, "method.multimodal")
    if multimodal and towers != "both":
        raise UsageError(
            "method.multimodal reads pictures and texts together, and method.towers is "
            f"{towers}: set method.towers=both."
        )
    model.requires_grad_(False)
    chosen = residual_blocks(model, towers, "uniadapter")
    image = [block for block in chosen if tower_of(model, block.name) == "image"]
    text = [block for block in chosen if tower_of(model, block.name) == "text"]
    decoder = dict(enumerate(decoder_layers(model))) if multimodal else {}
    reads = "stream" if norm == "own" else "input"
    parts: dict[str, nn.Module] = {}
    adapters: list[Branch] = []
    for number in range(max(len(image), len(text))):
        layer = [blocks[number] for blocks in (image, text) if number < len(blocks)]
        weights = [like(block) for block in layer]
        widths = {weight.shape[1] for weight in weights}
        alike, first = len(widths) == 1, weights[0]
        parts[f"down.{number}"] = linear(first.shape[1] if alike else rank, rank, first)
        if alike and norm == "own":
            parts[f"norm.{number}"] = _layer_norm(first)
        for block, weight in zip(layer, weights, strict=True):
            up = parts[f"{block.name}.up"] = linear(rank, weight.shape[1], weight)
            _begin(up, init == "upstream" and block in image)
            if not alike:
                parts[f"{block.name}.enter"] = linear(weight.shape[1], rank, weight, bias=False)
                if norm == "own":
                    parts[f"{block.name}.norm"] = _layer_norm(weight)

            def part(kind: str, own: str = block.name, shared: int = number) -> nn.Module:
                found = parts.get(f"{own}.{kind}", parts.get(f"{kind}.{shared}"))
                return nn.Identity() if found is None else found

            adapter = Adapter(part("norm"), part("enter"), part("down"), up, scale)
            beside_mlp(block, adapter, "uniadapter", reads=reads)
            adapters.append(adapter)
            if block in text and number in decoder:
                adapters += _in_decoder(decoder[number], adapter, parts, reads, init == "upstream")
    if multimodal:
        of_decoder = like(decoder[0][1])
        model.matching = parts["matching"] = linear(of_decoder.shape[1], 2, of_decoder)
    return Attached(model, parts, holding(parts, adapters), average)


def _in_decoder(
    layer: tuple[Block, Block],
    of_texts: Adapter,
    parts: dict[str, nn.Module],
    reads: str,
    random: bool,
) -> list[Branch]:
    """The adapters of a layer of the text decoder, which are put into it; new modules are added to
    the parts."""
    own, cross = layer
    weight = like(cross)
    shared = of_texts.norm, of_texts.enter, of_texts.down, of_texts.up
    query = Adapter(*shared, of_texts.own)
    up = linear(of_texts.up.in_features, weight.shape[1], weight)
    _begin(up, random)
    behind = _layer_norm(weight)
    parts |= {f"{cross.name}.up": up, f"{cross.name}.norm_of_sum": behind}
    both = MultimodalAdapter(of_texts, up, behind)
    for block, adapter in ((own, query), (cross, both)):
        beside_mlp(block, adapter, "uniadapter", reads=reads)
    return [query, both]


def _begin(up: nn.Linear, random: bool) -> None:
    """Give an up projection its start: trunc-normal of 0.02, or zero."""
    nn.init.zeros_(up.weight)
    if random:
        up.weight.data.copy_(nn.init.trunc_normal_(torch.empty(up.weight.shape), std=0.02))


def _layer_norm(weight: Tensor) -> nn.LayerNorm:
    return nn.LayerNorm(weight.shape[1], device=weight.device, dtype=weight.dtype)
