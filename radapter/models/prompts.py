"""Learned tokens among those of a ViT, and in texts.

An image tower with prompts has a module `prompts` with

    tokens(tower, patches)       from embedded patches [n, patches, width] to further tokens
                                 [n, prompts, width], which stand between class token and patches
    class_token(tower)           [width], without its place
    projection(tower)            [width, dim]
    reads_prompt                 whether the first prompt is read in the place of the class token
    scale                        radapter's alpha: the other tokens attend to prompts with so many
                                 times the weight, at 0 not at all

A text tower with a context has, in its table of tokens, a module `context` with `vectors` [places,
width], which take the places of the token `place` one after the other, and `scale`; the `template`
that texts of classes are put into has as many of these places.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.models.text import text_tower


def put_into_pictures(model: nn.Module, prompts: nn.Module) -> None:
    """Give the image tower prompts; `check_pictures` first."""
    tower: Any = model.visual
    tower.prompts = prompts
    # A class and not a method of the object, so that a copy of the model runs its own prompts.
    kind = type(tower)
    tower.__class__ = type(f"Prompted{kind.__name__}", (_Prompted, kind), {})


def check_pictures(model: nn.Module, method: str) -> None:
    """Raise UsageError if the image tower takes no prompts; the message names the method."""
    tower: Any = model.visual
    fits = (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and tower.proj is not None
    )
    if not fits:
        kind = type(getattr(tower, "trunk", tower)).__name__
        raise UsageError(
            f"{method} needs a ViT of open_clip's own code that is read at its class token, and "
            f"this image tower is a {kind}: use method.name=full."
        )


class _Prompted:
    """In front of the class of a ViT."""

    def forward(self: Any, x: Tensor) -> Tensor:
        prompts, patches = self.prompts, embedded_patches(self, x)
        tokens = prompts.tokens(self, patches).to(patches.dtype)
        first = (prompts.class_token(self) + self.positional_embedding[0]).to(patches.dtype)
        # By `shape` and not `len`, which an exported graph would take for a constant.
        x = torch.cat([first.expand(patches.shape[0], 1, -1), tokens, patches], dim=1)
        is_prompt = torch.zeros(x.shape[1], device=x.device)
        is_prompt[1 : 1 + tokens.shape[1]] = 1.0
        # What is added to scores before the softmax: log(scale) is that of `scale` equal tokens.
        bias = torch.where(is_prompt > 0, prompts.scale.float().clamp(min=0.0).log(), 0.0)
        x = self.transformer(self.ln_pre(x), attn_mask=bias.expand(x.shape[1], -1))
        pooled = x[:, 0]
        if prompts.reads_prompt:
            pooled = torch.lerp(pooled, x[:, 1], prompts.scale.to(x.dtype))
        features: Tensor = self.ln_post(pooled) @ prompts.projection(self)
        return features


def embedded_patches(tower: Any, pixels: Tensor) -> Tensor:
    """Pictures [n, 3, height, width] -> [n, patches, width] with their places, before the norm."""
    x = tower.conv1(pixels).flatten(2).transpose(1, 2)
    return x + tower.positional_embedding[1:].to(x.dtype)


def put_into_texts(model: nn.Module, context: nn.Module, method: str) -> None:
    """Give the text tower a context.

    Raises:
        UsageError: it has no table of tokens of its own; the message names the method.
    """
    table = table_of_tokens(model, method)
    table.context = context
    # A hook takes everything from the module that it is given: a copy of the model has its own.
    table.register_forward_hook(_put)


def table_of_tokens(model: nn.Module, method: str) -> Any:
    """The text tower's embedding of tokens; UsageError if it has none of its own."""
    tower = text_tower(model)
    table = getattr(tower, "token_embedding", None)
    if table is None:
        raise UsageError(
            f"{method} puts its context into a text tower of open_clip's own code, and this one is "
            f"a {type(tower).__name__}: set method.context=0."
        )
    return table


def _put(table: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    context = table.context
    is_place = inputs[0] == context.place
    number = (is_place.cumsum(dim=1) - 1).clamp(0, len(context.vectors) - 1)
    mixed = torch.lerp(output, context.vectors[number], context.scale.to(output.dtype))
    return torch.where(is_place[..., None], mixed, output)


def class_template(model: nn.Module) -> tuple[str, int] | None:
    """The template that a model with a context puts names of classes into, and the id of the token
    that its vectors take the place of; None: the model has none."""
    table = getattr(text_tower(model), "token_embedding", None)
    context: Any = getattr(table, "context", None)
    return None if context is None else (context.template, context.place)
