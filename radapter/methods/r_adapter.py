"""R-Adapter (Kim et al., ECCV 2024): linear adapters that fold into the weights they follow.

In every transformer block one adapter follows the attention's output projection and one the MLP's
second linear layer, inside its residual branch:

    A(z) = z + gamma / (1 - p) * s * W z,    gamma ~ Bernoulli(1 - p) in training, no bias

so that with the averaged W~ and a scale alpha the layer before it becomes (section 3.2)

    W_rep = (I + alpha s W~) W_org,    b_rep = (I + alpha s W~) b_org

W starts at zero (low rank: W = U D with U zero), so training starts at the zero-shot model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from radapter.errors import BrokenInput
from radapter.methods import folded
from radapter.methods.attached import Attached, Values
from radapter.methods.batch_rows import bernoulli_of_rows
from radapter.methods.blocks import residual_blocks
from radapter.registry import AdapterAverage, Count, Towers

EXAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {"rank": 3, "learn_scale": True},
    {"rank": 3, "drop_unit": "sample", "average": AdapterAverage(momentum=0.0, of="factors")},
    {"scale": 0.4, "drop_unit": "position", "average": AdapterAverage(of="factors")},
    {"towers": "image"},
)


class Adapter(nn.Module):
    """One adapter of width d: z [..., d] -> z + s W z."""

    def __init__(
        self,
        width: int,
        rank: int | None,
        *,
        drop: float,
        drop_unit: str,
        scale: float,
        learn_scale: bool,
    ):
        super().__init__()
        self.drop, self.drop_unit = drop, drop_unit
        if rank is None:
            self.weight = nn.Parameter(torch.zeros(width, width))
        else:
            self.up = nn.Parameter(torch.zeros(width, rank))
            self.down = nn.Parameter(torch.empty(rank, width))
            nn.init.xavier_uniform_(self.down)
        self.low_rank = rank is not None
        initial = torch.tensor(float(scale))
        if learn_scale:
            self.scale: Tensor = nn.Parameter(initial)
        else:
            self.register_buffer("scale", initial)
        self.fixed: Tensor | None = None
        """An effective matrix to use instead of the trained one, without dropping."""
        self.off = False

    def effective(self) -> Tensor:
        """s W, [d, d]."""
        return self.scale * (self.up @ self.down if self.low_rank else self.weight)

    def norm_after(self, gram: Tensor) -> Tensor:
        """||s W A||^2 = s^2 tr(W A A^T W^T) from A A^T [d, d]; W itself is not formed."""
        if not self.low_rank:
            return self.scale**2 * ((self.weight @ gram) * self.weight).sum()
        return self.scale**2 * ((self.up.T @ self.up) * (self.down @ gram @ self.down.T)).sum()

    def forward(self, z: Tensor) -> Tensor:
        """As a module of its own after the layer: z [batch, tokens, d], adapted."""
        if self.off:
            return z
        if self.fixed is not None:
            return z + F.linear(z, self.fixed)
        keep = self._keep(z)
        if isinstance(keep, Tensor):
            if self.low_rank:
                return z + F.linear(keep * F.linear(z, self.down), self.scale * self.up)
            return z + keep * self.scale * F.linear(z, self.weight)
        if not keep:
            return folded.dropped(z, *self.parameters())
        if self.low_rank:
            return z + F.linear(F.linear(z, self.down), keep * self.scale * self.up)
        return z + F.linear(z, keep * self.scale * self.weight)

    def after_linear(self, linear: nn.Linear, h: Tensor, z: Tensor | None = None) -> Tensor:
        """The adapted output of `linear` for h [batch, tokens, in], with as little work as that
        takes; z: its plain output, where that is there already."""
        one_draw = self.drop_unit == "adapter" or not (self.training and self.drop)
        # In half precision I + s W would lose a small s W. Without gradients nothing is saved.
        exact = h.dtype == self.scale.dtype and not torch.is_autocast_enabled(h.device.type)
        trains = torch.is_grad_enabled() and not self.off and self.fixed is None
        if not (one_draw and exact and trains) or (self.low_rank and z is not None):
            return self(F.linear(h, linear.weight, linear.bias) if z is None else z)
        keep = self._keep(h)
        if not isinstance(keep, Tensor) and not keep:
            z = F.linear(h, linear.weight, linear.bias) if z is None else z
            return folded.dropped(z, *self.parameters())
        if self.low_rank:
            return folded.low_rank(h, linear, self.down, keep * self.scale * self.up)
        change = keep * self.scale * self.weight
        if z is None:
            return folded.through_weight(h, linear, change)
        return folded.after(h, z, linear, change)

    def _keep(self, z: Tensor) -> Tensor | float:
        """gamma / (1 - p): one draw for the adapter, one a sample, or one a token position."""
        if not (self.training and self.drop):
            return 1.0
        kept = 1.0 - self.drop
        if self.drop_unit == "adapter":
            # Drawn on the CPU, so that no device is waited for to know whether there is work.
            draw = torch.empty([], dtype=z.dtype).bernoulli_(kept)
            # A compiled graph holds for both outcomes.
            return draw / kept if torch.compiler.is_compiling() else draw.item() / kept
        if self.drop_unit == "sample":
            return bernoulli_of_rows(z, kept) / kept
        shape = [1, z.shape[1], 1]
        return torch.empty(shape, device=z.device, dtype=z.dtype).bernoulli_(kept) / kept


def attach(
    model: nn.Module,
    *,
    rank: Literal["full"] | Count = "full",
    towers: Towers = "both",
    drop: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2,
    drop_unit: Literal["adapter", "sample", "position"] = "adapter",
    scale: float = 1.0,
    learn_scale: bool = False,
    average: AdapterAverage = AdapterAverage(),
) -> Attached:
    """Freeze an open_clip model and put adapters into the residual branches of its blocks.

    Args:
        model: an open_clip model; whose blocks they are does not matter, see `blocks`.
        rank: "full" for a d x d matrix, or a number r for W = U D with U [d, r] and D [r, d].
        towers: which towers are trained: "both", "image" or "text".
        drop: the probability p that an adapter is dropped in a training step.
        drop_unit: what is dropped by one draw: "adapter", the whole adapter, as in the paper;
            "sample", the adapter for one sample of the batch; "position", the adapter for one token
            position of all samples, as in the released code.
        scale: the factor s of W; with `learn_scale` its initial value, 0.1 in the released code.
        learn_scale: whether s is trained, one for each adapter.
        average: moving average of s W, or of s and W; what is kept after training.

    Raises:
        UsageError: a tower without such blocks.
    """
    model.requires_grad_(False)
    adapters: dict[str, Adapter] = {}
    device = next(model.parameters()).device
    full = None if rank == "full" else int(rank)
    for block in residual_blocks(model, towers, "r-adapter"):
        for place in block.outputs():
            linear = block.module.get_submodule(place)
            adapter = Adapter(
                linear.out_features,  # type: ignore[arg-type]
                full,
                drop=drop,
                drop_unit=drop_unit,
                scale=scale,
                learn_scale=learn_scale,
            ).to(device)
            # Follow the mode of the model without being in its state dict.
            adapter.training = model.training
            adapters[f"{block.name}.{place}"] = adapter
            sublayer = block.module.get_submodule(place.rpartition(".")[0])
            _follow(linear, sublayer, adapter)

    def values() -> Values:
        if average.of == "effective":
            return {f"{name}.delta": adapter.effective() for name, adapter in adapters.items()}
        return {
            f"{name}.{key}": value
            for name, adapter in adapters.items()
            for key, value in adapter.state_dict().items()
        }

    def hold(kept: Values | None, alpha: float) -> None:
        deltas = effective_matrices(kept) if kept else {}
        for name, adapter in adapters.items():
            adapter.off = kept == {}
            adapter.fixed = alpha * deltas[name] if deltas else None

    grams: dict[str, Tensor] = {}

    def change() -> Tensor:
        """What `merge` at 1 adds to weights and biases, ||s W (W_org, b_org)||^2."""
        if not grams:
            for name in adapters:
                grams[name] = _gram(model.get_submodule(name))
        norms = [adapter.norm_after(grams[name]) for name, adapter in adapters.items()]
        return torch.stack(norms).sum()

    return Attached(model, adapters, hold, average, values=values, change=change)


@torch.no_grad()
def _gram(linear: nn.Module) -> Tensor:
    """W W^T + b b^T [d, d] of a linear layer."""
    gram: Tensor = linear.weight @ linear.weight.T  # type: ignore[operator]
    return gram if linear.bias is None else gram + torch.outer(linear.bias, linear.bias)  # type: ignore[arg-type]


def _follow(linear: nn.Module, sublayer: nn.Module, adapter: Adapter) -> None:
    """Put the adapter after `linear`, the last layer of a sublayer."""

    def follow(linear: nn.Linear, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
        adapter.training = linear.training
        return adapter.after_linear(linear, inputs[0], z)

    def attention(
        self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        adapter.training = self.training
        if torch.is_grad_enabled() and folded.can_attend(self, query, key, value, options):
            mixed = folded.attend(self, query, options.get("attn_mask"))
            return adapter.after_linear(self.out_proj, mixed), None
        output, weights = type(self).forward(self, query, key, value, **options)
        return adapter(output), weights

    if isinstance(sublayer, nn.MultiheadAttention):  # reads the layer's weight, never calls it
        sublayer.forward = MethodType(attention, sublayer)  # type: ignore[method-assign]
    else:
        linear.register_forward_hook(follow)


def effective_matrices(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """s W~ [d, d] by the name of the linear layer it follows, from stored tensors of any form."""
    linears = dict.fromkeys(name.rsplit(".", 1)[0] for name in stored)
    matrices = {}
    for linear in linears:
        part = {key: stored[f"{linear}.{key}"] for key in _keys(stored, linear)}
        if "delta" in part:
            matrices[linear] = part["delta"]
        elif "weight" in part:
            matrices[linear] = part["scale"] * part["weight"]
        elif {"up", "down"} <= set(part):
            matrices[linear] = part["scale"] * (part["up"] @ part["down"])
        else:
            raise BrokenInput(f"The adapter has no matrix for {linear}.")
    return matrices


def _keys(stored: Mapping[str, Tensor], linear: str) -> list[str]:
    known = ("delta", "weight", "up", "down", "scale")
    return [key for key in known if f"{linear}.{key}" in stored]


def merge(
    base: Mapping[str, Tensor], stored: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Fold averaged adapters, scaled by alpha, into the weights they follow.

    W_rep = W + alpha s W~ W and the same for the bias; alpha = 0 gives the base bit for bit. The
    product is formed in float64, so it is as good as fp32 can hold.
    """
    merged = {name: tensor.clone() for name, tensor in base.items()}
    if alpha == 0:
        return merged
    for linear, delta in effective_matrices(stored).items():
        if f"{linear}.weight" not in base:
            raise BrokenInput(f"The adapter belongs to another model: it has no {linear}.")
        for name in (f"{linear}.weight", f"{linear}.bias"):
            if name not in base:  # a linear layer without bias
                continue
            original = base[name].double()
            change = delta.double() @ original
            merged[name] = (original + alpha * change).to(base[name].dtype)
    return merged
