"""Full fine-tuning; merged at alpha it is weight interpolation (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from radapter.errors import BrokenInput
from radapter.methods.average import MovingAverage
from radapter.methods.blocks import tower_of


class FullFineTuning:
    """The model's own parameters, trained."""

    switched_off = None

    def __init__(self, model: nn.Module, names: list[str], average: Mapping[str, Any]):
        parameters = dict(model.named_parameters())
        self.trained = {name: parameters[name] for name in names}
        # Without momentum the average is the weights themselves: no copy is kept.
        self.averages: bool = average.get("momentum", 0.0) > 0
        self.average = MovingAverage(self._averaged_values(), dict(average))

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.trained.items()

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.trained.values()

    def _averaged_values(self) -> Iterable[tuple[str, Tensor]]:
        return self.trained.items() if self.averages else ()

    def update_average(self) -> None:
        self.average.update(self._averaged_values())

    def start_share(self) -> float:
        return self.average.start_share

    def state(self) -> dict[str, Tensor]:
        state = {f"trained.{name}": p.detach() for name, p in self.trained.items()}
        return state | self.average.state()

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(state[f"trained.{name}"])
        self.average.load_state(state)

    def stored(self) -> dict[str, Tensor]:
        values = self.average.mean or self.trained
        return {name: value.detach().cpu().clone() for name, value in values.items()}


def attach(
    model: nn.Module,
    *,
    towers: str = "both",
    train_temperature: bool = False,
    average: Mapping[str, Any] | None = None,
) -> FullFineTuning:
    """Train the parameters of one or both towers; CoCa's decoder is in neither.

    Args:
        model: an open_clip model.
        towers: "both", "image" or "text".
        train_temperature: train `logit_scale` too; a SigLIP's `logit_bias` is in no objective.
        average: `momentum` and `warmup` of a moving average of the weights; off by default.
    """
    model.requires_grad_(False)
    names = []
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            chosen = train_temperature
        else:
            tower = tower_of(model, name)
            chosen = tower is not None and towers in ("both", tower)
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
