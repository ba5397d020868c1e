"""Full fine-tuning; merged at alpha it is weight interpolation (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import BrokenInput, UsageError
from radapter.methods.attached import Attached, Hold, Values
from radapter.methods.blocks import residual_blocks, tower_of
from radapter.registry import Average, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {"train_temperature": True, "average": Average(momentum=0.9)},
    {"towers": "image"},
    {"last_blocks": 1},
)

AFTER = re.compile(
    r"(ln_post|ln_final|norm|fc_norm|layer_norm|final_layer_norm|attn_pool|pooler|head|proj"
    r"|text_projection)"
)
"""A part of the names of what follows the blocks of a tower: its last norm, pooling, projection"""
BEFORE = re.compile(r"embed|conv1|ln_pre|norm_pre|cls_token|stem")
"""... and of what stands before them"""


def attach(
    model: nn.Module,
    *,
    towers: Towers = "both",
    last_blocks: Count | None = None,
    train_temperature: bool = False,
    average: Average = Average(momentum=0.0),
) -> Attached:
    """Train the parameters of one or both towers; CoCa's decoder is in neither.

    Args:
        model: an open_clip model.
        towers: which towers are trained: "both", "image" or "text".
        last_blocks: how many of the last blocks of each tower are trained, with the norms in them
            and what follows them: the last norm, the pooling and the projection. All before them,
            the embeddings too, stays as it is. None: the whole tower.
        train_temperature: whether `logit_scale` is trained too; a SigLIP's `logit_bias` never is,
            as no objective reads it.
        average: moving average of the weights, what is kept after training; off by default.

    Raises:
        UsageError: `last_blocks` of a tower that has no such blocks, or fewer.
    """
    model.requires_grad_(False)
    trained = weights_of(model, towers, temperature=train_temperature)
    if last_blocks is not None:
        last = {"logit_scale"} | _last(model, towers, last_blocks)
        trained = {name: parameter for name, parameter in trained.items() if name in last}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    attached = Attached(model, trained, interpolating(trained, lambda: attached.start), average)
    return attached


def weights_of(
    model: nn.Module, towers: Towers, *, temperature: bool = False
) -> dict[str, nn.Parameter]:
    """A model's own parameters in these towers, by name; `temperature`: `logit_scale` too."""

    def is_chosen(name: str) -> bool:
        if name == "logit_scale":
            return temperature
        tower = tower_of(model, name)
        return tower is not None and towers in ("both", tower)

    return {name: p for name, p in model.named_parameters() if is_chosen(name)}


def interpolating(trained: Mapping[str, nn.Parameter], start: Callable[[], Values]) -> Hold:
    """The `hold` of an `Attached` of a model's own weights: kept ones, interpolated with the start.

    Args:
        trained: the parameters, by name.
        start: gives what they were before training.
    """
    present: dict[str, Tensor] = {}

    def hold(kept: Values | None, alpha: float) -> None:
        for name, parameter in trained.items():
            # Replace the tensor, do not write into it: an earlier graph still needs its values.
            if kept is None:
                parameter.data = present.pop(name, parameter.data)
            else:
                present[name], first = parameter.data, start()[name]
                parameter.data = torch.lerp(first, kept[name], alpha) if kept else first

    return hold


def _last(model: nn.Module, towers: Towers, count: int) -> set[str]:
    """Names of the parameters in the last blocks of each chosen tower, and behind them."""
    blocks = [b.name for b in residual_blocks(model, towers, "method.last_blocks")]
    chosen: list[str] = []
    for tower in ("image", "text"):
        own = [name for name in blocks if tower_of(model, name) == tower]
        if own and len(own) < count:
            raise UsageError(
                f"method.last_blocks is {count}, and the {tower} tower has {len(own)} blocks."
            )
        chosen += own[-count:]

    def wanted(name: str) -> bool:
        if any(name.startswith(f"{block}.") for block in blocks):
            return any(name.startswith(f"{block}.") for block in chosen)
        return any(AFTER.fullmatch(part) for part in name.split(".")) and not BEFORE.search(name)

    return {name for name, _ in model.named_parameters() if wanted(name)}


def merge(
    base: Mapping[str, Tensor], stored: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 - alpha) base + alpha tuned; exactly the base at 0 and exactly the tuned model at 1."""
    merged = {name: tensor.clone() for name, tensor in base.items()}
    if alpha == 0:
        return merged
    for name, tuned in stored.items():
        if name not in base or base[name].shape != tuned.shape:
            raise BrokenInput(f"The tuned weights belong to another model: it has no {name}.")
        merged[name] = torch.lerp(base[name], tuned.to(base[name].dtype), alpha)
    return merged
