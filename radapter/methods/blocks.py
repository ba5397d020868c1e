"""Where adapters go: the residual attention blocks of open_clip's transformers."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from radapter.errors import UsageError


def residual_blocks(model: nn.Module, towers: str, method: str) -> Iterator[tuple[str, nn.Module]]:
    """(name, block) of the residual attention blocks, the image tower's first, each in its order.

    Args:
        model: an open_clip model.
        towers: "both", "image" or "text".
        method: named in the message.

    Raises:
        UsageError: a tower that has none.
    """
    for tower in ("image", "text"):
        if towers not in ("both", tower):
            continue
        found = False
        for name, module in model.named_modules():
            if name.startswith("visual.") != (tower == "image"):
                continue
            names = {child for child, _ in module.named_modules()}
            if {"attn.out_proj", "mlp.c_proj", "ln_1", "ln_2"} <= names:
                found = True
                yield name, module
        if not found:
            raise UsageError(
                f"The {tower} tower of this model has no residual attention blocks, which "
                f"{method} needs. Use method 'full', or restrict `method.towers`."
            )
