"""Full fine-tuning; merged at alpha it is weight interpolation (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import BrokenInput


class FullFineTuning:
    """The model's own parameters, trained."""

    def __init__(self, model: nn.Module, names: list[str], average: Mapping[str, Any]):
        parameters = dict(model.named_parameters())
        self.trained = {name: parameters[name] for name in names}
        self.momentum: float = average.get("momentum", 0.0)
        self.warmup: bool = average.get("warmup", False)
        self.updates = 0
        self._share = 1.0
        self.average: dict[str, Tensor] = (
            {name: p.detach().clone() for name, p in self.trained.items()} if self.momentum else {}
        )

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.trained.values()

    @torch.no_grad()
    def update_average(self) -> None:
        m = self.momentum
        if self.warmup:
            m = min(m, (1 + self.updates) / (10 + self.updates))
        for name, value in self.average.items():
            value.lerp_(self.trained[name], 1.0 - m)
        self.updates += 1
        self._share *= m

    def zero_share(self) -> float:
        return self._share

    def state(self) -> dict[str, Tensor]:
        state = {f"trained.{name}": p.detach() for name, p in self.trained.items()}
        state |= {f"average.{name}": value for name, value in self.average.items()}
        # float64 holds both exactly: the count is far below 2^53.
        state["progress"] = torch.tensor([self.updates, self._share], dtype=torch.float64)
        return state

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(state[f"trained.{name}"])
        for name, value in self.average.items():
            value.copy_(state[f"average.{name}"])
        self.updates = int(state["progress"][0])
        self._share = float(state["progress"][1])

    def stored(self) -> dict[str, Tensor]:
        values = self.average or self.trained
        return {name: value.detach().cpu().clone() for name, value in values.items()}


def attach(
    model: nn.Module,
    *,
    towers: str = "both",
    train_temperature: bool = False,
    average: Mapping[str, Any] | None = None,
) -> FullFineTuning:
    """Train the parameters of one or both towers.

    Args:
        model: an open_clip model.
        towers: "both", "image" or "text".
        train_temperature: train `logit_scale` too (and `logit_bias`, where there is one).
        average: `momentum` and `warmup` of a moving average of the weights; off by default.
    """
    model.requires_grad_(False)
    names = []
    for name, parameter in model.named_parameters():
        if name in ("logit_scale", "logit_bias"):
            chosen = train_temperature
        else:
            chosen = towers in ("both", "image" if name.startswith("visual.") else "text")
        if chosen:
            parameter.requires_grad_(True)
            names.append(name)
    return FullFineTuning(model, names, average or {})


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
