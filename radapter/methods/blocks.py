"""Where adapters go: the residual attention blocks of a tower, whoever wrote its code."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from braceexpand import braceexpand
from torch import nn

from radapter.errors import UsageError
from radapter.models.text import text_tower

Form = tuple[tuple[str, ...], str]
"""(the weights that read a sublayer's input, the linear layer that writes its output)"""


def _forms_of(*rows: tuple[str, str]) -> tuple[Form, ...]:
    """The weights of each row are written with braces, as a shell has them."""
    return tuple((tuple(braceexpand(weights)), output) for weights, output in rows)


ATTENTION = _forms_of(
    # open_clip: query, key and value on top of each other in one weight
    ("attn.in_proj_weight", "attn.out_proj"),
    # timm: the same; EVA02 in three
    ("attn.qkv.weight", "attn.proj"),
    ("attn.{q,k,v}_proj.weight", "attn.proj"),
    # transformers: RoBERTa, NLLB, mT5
    ("attention.self.{query,key,value}.weight", "attention.output.dense"),
    ("self_attn.{q,k,v}_proj.weight", "self_attn.out_proj"),
    ("layer.0.SelfAttention.{q,k,v}.weight", "layer.0.SelfAttention.o"),
)
MLP = _forms_of(
    # open_clip
    ("mlp.c_fc.weight", "mlp.c_proj"),
    # timm; with a gate EVA02 and ViTamin
    ("mlp.fc1.weight", "mlp.fc2"),
    ("mlp.{fc1_g,fc1_x}.weight", "mlp.fc2"),
    ("mlp.{w0,w1}.weight", "mlp.w2"),
    # transformers: RoBERTa, NLLB, mT5
    ("intermediate.dense.weight", "output.dense"),
    ("fc1.weight", "fc2"),
    ("layer.1.DenseReluDense.{wi_0,wi_1}.weight", "layer.1.DenseReluDense.wo"),
)
FUSED = ("attn.in_proj_weight", "attn.qkv.weight")
"""Three matrices on top of each other"""

PARTS_OF_PICTURES = ("window_size", "partition_size")
"""Attributes of blocks that attend within windows: what they call a batch is windows of pictures"""


@dataclass(frozen=True)
class Block:
    """A residual attention block; the names of layers and weights are those inside `module`."""

    name: str
    """In the model"""
    module: nn.Module
    attention: Form
    mlp: Form

    def outputs(self) -> tuple[str, str]:
        """The linear layers [..., in] -> [batch, tokens, d] that end the two residual branches."""
        return self.attention[1], self.mlp[1]

    def weights(self) -> dict[str, int]:
        """All weights, and how many matrices lie on top of each other in them."""
        (attention, out), (mlp, end) = self.attention, self.mlp
        names = [*attention, f"{out}.weight", *mlp, f"{end}.weight"]
        return {name: 3 if name in FUSED else 1 for name in names}


def tower_of(model: Any, name: str) -> str | None:
    """ "image" or "text", the tower that a parameter or module is in; None for what neither
    `encode_image` nor `encode_text` runs: a temperature, CoCa's decoder, an inversion network."""
    if name.startswith("visual."):
        return "image"
    if name in ("logit_scale", "logit_bias") or name.partition(".")[0] == "inversion":
        return None
    return "text" if text_tower(model) is model or name.startswith("text.") else None


def residual_blocks(model: nn.Module, towers: str, method: str) -> list[Block]:
    """The residual attention blocks, the image tower's first, each in its order.

    Args:
        towers: "both", "image" or "text".
        method: named in the message.

    Raises:
        UsageError: a tower that has none.
    """
    found = {tower: list(_blocks(model, tower)) for tower in ("image", "text")}
    for tower, other in (("image", "text"), ("text", "image")):
        if towers in ("both", tower) and not found[tower]:
            instead = f"method.towers={other} or " if found[other] else ""
            raise UsageError(
                f"{method} needs plain transformer blocks, and the {tower} tower of this model, "
                f"a {_kind(model, tower)}, has none: use {instead}method.name=full."
            )
    return [b for tower in found if towers in ("both", tower) for b in found[tower]]


def decoder_layers(model: Any) -> list[tuple[Block, Block]]:
    """The layers of CoCa's text decoder, each a block in which tokens attend to tokens before and
    one in which they attend to the picture."""

    def blocks(kind: str) -> list[Block]:
        modules = enumerate(getattr(model.text_decoder, kind))
        named = [(f"text_decoder.{kind}.{number}", module) for number, module in modules]
        return [Block(n, m, _forms(m, ATTENTION)[0], _forms(m, MLP)[0]) for n, m in named]

    return list(zip(blocks("resblocks"), blocks("cross_attn"), strict=True))


def _blocks(model: nn.Module, tower: str) -> Iterator[Block]:
    for name, module in model.named_modules():
        if tower_of(model, name) != tower:
            continue
        for attention, mlp in itertools.product(_forms(module, ATTENTION), _forms(module, MLP)):
            if any(getattr(module, attribute, None) for attribute in PARTS_OF_PICTURES):
                return  # adapters take tokens of whole pictures
            yield Block(name, module, attention, mlp)


def _forms(module: nn.Module, forms: tuple[Form, ...]) -> list[Form]:
    """The one that a module has, if any."""
    return [
        (weights, linear)
        for weights, linear in forms
        if isinstance(_inside(module, linear), nn.Linear)
        and all(_inside(module, weight) is not None for weight in weights)
    ]


def _inside(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def _kind(model: Any, tower: str) -> str:
    """The class of a tower, without open_clip's wrapper around it."""
    if tower == "image":
        return type(getattr(model.visual, "trunk", model.visual)).__name__
    text = text_tower(model)
    return type(text if text is model else getattr(text, "transformer", text)).__name__
