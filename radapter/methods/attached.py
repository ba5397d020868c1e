"""The trained part of a model: the same for every method."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from radapter.errors import UsageError
from radapter.methods.blocks import tower_of
from radapter.registry import Average

Values = Mapping[str, Tensor]
Hold = Callable[[Values | None, float], None]


class Attached:
    """What a method trains in a model, and its exponential moving average.

    Args:
        model: the model that it is attached to.
        parts: what the optimizer updates, by name: parameters, or modules of them.
        hold: lets the model compute with kept values, scaled by alpha, in place of what is trained;
            with none of them ({}) it is the zero-shot model, and with None it trains again.
        average: mean <- m * mean + (1 - m) * value; with a momentum of 0 there is none.
        values: what is averaged, by name; None: what is trained.
        kept: from the averaged values to those that are stored; None: as they are.
        towers: those of "image" and "text" that parts are in whose names do not say it.
        change: the squared Frobenius norm of the change that the present values make to the model's
            weights, a scalar with gradients; None: their squared distance from `start`.
        rates: by name, what the learning rate of some parameters is multiplied by.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, nn.Parameter] | Mapping[str, nn.Module],
        hold: Hold,
        average: Average,
        *,
        values: Callable[[], Values] | None = None,
        kept: Callable[[Values], Values] = lambda values: values,
        towers: Collection[str] = (),
        change: Callable[[], Tensor] | None = None,
        rates: Mapping[str, float] = MappingProxyType({}),
    ):
        self.model, self.hold, self.settings, self._kept = model, hold, average, kept
        self.change, self._towers, self.rates = change, towers, rates
        self.behind = False
        """Whether the image tower stays as it is, and what is trained reads its features"""
        self.modules = {n: part for n, part in parts.items() if isinstance(part, nn.Module)}
        self.trained = {n: part for n, part in parts.items() if isinstance(part, nn.Parameter)}
        for name, module in self.modules.items():
            self.trained |= module.named_parameters(name)
        self._own = dict(self.trained)
        self._values = values or (lambda: self._own)
        self.beside: dict[str, nn.Module] = {}
        """See `add`"""
        self.mean: dict[str, Tensor] = {}
        self._begin_average()
        self.held: tuple[Values | None, float] = None, 1.0
        """What `hold` has been called with, for good: that is trained, or what was loaded"""
        self.updates = 0
        """Optimizer steps so far"""
        self.steps = 0
        """Those of the whole training, if it is known: a momentum that rises needs it"""
        self.start_share = 1.0
        """The weight of the starting values in the average (the bias of the EMA), 0 to 1"""
        self.start: dict[str, Tensor] = {}
        """See `keep_start`"""

    def add(self, name: str, module: nn.Module) -> None:
        """Train a module that no tower runs: its parameters are averaged, resumed and stored under
        the name, with its buffers. It is no part of the model, so `at` and `load_stored` leave it
        as it is."""
        self.beside[name] = module
        self.trained |= module.named_parameters(name)
        self._begin_average()

    def _begin_average(self) -> None:
        if self.settings.momentum:
            self.mean = {name: value.detach().clone() for name, value in self.values().items()}

    @property
    def trains_model(self) -> bool:
        """Whether anything of the towers is trained."""
        return bool(self.towers())

    def values(self) -> Values:
        """What is averaged, by name."""
        return {**self._values(), **self._of_beside(nn.Module.named_parameters)}

    def _of_beside(self, named: Callable[..., Any]) -> dict[str, Tensor]:
        return {key: value for name, of in self.beside.items() for key, value in named(of, name)}

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer updates."""
        yield from self.trained.values()

    def towers(self) -> set[str]:
        """Those of "image" and "text" that something trained is in."""
        # Parts that towers share have names of their own.
        inside = [name for name in self.trained if hasattr(self.model, name.partition(".")[0])]
        return {t for name in inside if (t := tower_of(self.model, name))} | {*self._towers}

    def keep_start(self, *, adapters: bool = False) -> None:
        """Keep a copy of the model's own weights that are trained, if any are: `at` needs it, since
        the zero-shot model is not there without them. To be called before training.

        Args:
            adapters: keep the first values of adapters too.
        """
        of_adapters = {p for module in self.modules.values() for p in module.parameters()}
        for name, parameter in self.trained.items():
            if name not in self.start and (adapters or parameter not in of_adapters):
                self.start[name] = parameter.detach().clone()

    def check_gradients(self) -> None:
        """After the gradients of a step: an optimizer passes over a parameter that has none.

        Raises:
            UsageError: names the first such parameter.
        """
        without = [name for name, p in self.trained.items() if p.grad is None]
        if without and without[0].partition(".")[0] in self.beside:
            raise UsageError(f"The loss does not reach {without[0]}: no term reads it.")
        if without:
            more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
            raise UsageError(
                f"The loss does not reach {without[0]}{more}: it gets no gradient and would stay "
                "as it is. Leave it out by a setting of the method, such as method.towers."
            )

    @torch.no_grad()
    def update_average(self) -> None:
        """Take the present values into the average, if it is time; call it after each optimizer
        step."""
        settings = self.settings
        if self.updates % settings.every == 0:
            m = self._momentum()
            if self.mean:
                values = list(self.values().values())
                get_ema_multi_avg_fn(m)(list(self.mean.values()), values, None)
            self.start_share *= m if settings.keep == "average" else 0.0
        self.updates += 1

    def _momentum(self) -> float:
        settings, rise = self.settings, self.settings.rise * self.steps
        m = settings.momentum
        if self.updates < rise:
            m = settings.first + (m - settings.first) * self.updates / rise
        done = self.updates // settings.every
        return min(m, (1 + done) / (10 + done)) if settings.warmup else m

    def kept(self, *, average: bool = False) -> Values:
        """What a run keeps of the model, by name, on its device: the average or, where there is
        none or it is a teacher alone, the last values. `average`: the average in any case."""
        with torch.no_grad():
            return self._kept(self._present(self._values(), average))

    def _present(self, values: Values, average: bool = False) -> dict[str, Tensor]:
        mean = self.mean if average or self.settings.keep == "average" else {}
        return {name: mean.get(name, value).detach() for name, value in values.items()}

    def stored(self) -> dict[str, Tensor]:
        """A copy of it on the CPU, which `merge` takes, and of what was added."""
        beside = self._present(self._of_beside(nn.Module.named_parameters))
        everything = {**self.kept(), **beside, **self._of_beside(nn.Module.named_buffers)}
        return {name: value.cpu().clone() for name, value in everything.items()}

    @torch.no_grad()
    def begin_at(self, stored: Values) -> None:
        """Start training, and the average, at what another training of the same has stored.

        Args:
            stored: all of it, or of the model's own weights some.

        Raises:
            ValueError: it is of what is not trained here, or cannot be taken up: its message is the
                name of the first such tensor.
        """
        own = {**self.values(), **self.trained, **self._of_beside(nn.Module.named_buffers)}
        for name, value in stored.items():
            if name not in own or own[name].shape != value.shape:
                raise ValueError(name)
            own[name].copy_(value)
        self._begin_average()
        for name, value in self.stored().items():
            if name in stored and not torch.allclose(value, stored[name].cpu()):
                raise ValueError(name)

    @torch.no_grad()
    def start_at(self, values: Values) -> None:
        """Put what was added where it starts, by name; see `begin_at` and `start`."""
        self.begin_at(values)
        for name, value in self.start.items():
            if name in values:
                value.copy_(values[name])

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to go on training exactly."""
        # float64 holds both exactly: the count is far below 2^53.
        progress = torch.tensor([self.updates, self.start_share], dtype=torch.float64)
        own = {f"trained.{name}": p.detach() for name, p in self.trained.items()}
        return own | {f"average.{n}": v for n, v in self.mean.items()} | {"progress": progress}

    @torch.no_grad()
    def load_state(self, state: Values) -> None:
        """Take back what `state` gave."""
        for name, parameter in self.trained.items():
            parameter.copy_(state[f"trained.{name}"])
        for name, mean in self.mean.items():
            mean.copy_(state[f"average.{name}"])
        self.updates = int(state["progress"][0])
        self.start_share = float(state["progress"][1])

    @torch.no_grad()
    def load_stored(self, stored: Values, alpha: float) -> None:
        """Compute with what a run has stored, scaled by alpha, from now on: a model to be used, not
        one that was trained here."""
        self.keep_start()
        device = next(self.model.parameters()).device
        self.held = {name: value.to(device) for name, value in stored.items()}, alpha
        self.hold(*self.held)

    @contextlib.contextmanager
    def at(self, alpha: float, *, average: bool = False) -> Iterator[nn.Module]:
        """The model in evaluation mode with what is kept (see there), scaled: 0 the zero-shot
        model, 1 the tuned one. What is trained, and each module's mode, are back afterwards."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            with torch.no_grad():
                self.hold(self.kept(average=average) if alpha else {}, alpha)
            yield self.model
        finally:
            self.hold(*self.held)
            for module, mode in modes.items():
                module.training = mode
