"""A head with the names of its classes, as models are used with it; how one that is trained starts,
is stored, and is mixed with the zero-shot head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from radapter.classes import key_of
from radapter.errors import BrokenInput
from radapter.files import facts_metadata, radapter_facts, write_atomic
from radapter.registry import GATES, HEADS, load

State = Mapping[str, Tensor]
Examples = tuple[Tensor, Tensor]
"""Unit-norm features of pictures [n, dim], and the place of each one's class in the head [n]; -1:
the picture could not be read"""
FILE = "head.safetensors"
TUNED, ZERO_SHOT = "head.", "head_at_zero."
"""How names of a head's tensors begin in what a run stores: as they are trained, and at alpha 0"""


@dataclass(frozen=True)
class Start:
    """What a head is made from: the zero-shot classifier, and the pictures of training."""

    weights: Tensor
    """[classes, dim], unit norm"""
    logit_scale: float
    """What cosines are multiplied by to become logits"""
    examples: Callable[[int], Examples] = lambda passes: (torch.zeros(0, 1), torch.zeros(0).long())
    """Encodes the pictures of training, for a head that keeps them: 0: as evaluation prepares them;
    else the mean of so many augmentations of each"""


@dataclass(frozen=True)
class Head:
    """From unit-norm features of pictures [n, dim] to logits [n, classes], fp32."""

    names: Sequence[str]
    """Of the classes"""
    module: nn.Module
    facts: Mapping[str, Any] | None = None
    """Of a trained one: `name` and settings, as a recipe has them, and `classes`; `examples`, how
    many pictures' features it keeps, if it does; `found`, what `search` chose, if it did"""

    def logits(self, features: Tensor) -> Tensor:
        """Of features [n, dim] on the CPU."""
        with torch.no_grad():
            found: Tensor = self.module(features)
        return found

    def rows(self, names: Sequence[str]) -> list[int] | None:
        """The place of each class among its own; None if it does not know one of them."""
        place = {key_of(name): row for row, name in enumerate(self.names)}
        rows = [place.get(key_of(name), -1) for name in names]
        return None if -1 in rows else rows

    def among(self, names: Sequence[str]) -> Head | None:
        """The head of these classes alone, in this order; None if it does not know one of them."""
        rows = self.rows(names)
        if rows is None or rows == list(range(len(self.names))):
            return self if rows else None
        own: Any = getattr(self.module, "among", functools.partial(_Some, self.module))
        return dataclasses.replace(self, names=list(names), module=own(rows))


class _Some(nn.Module):
    """Some columns of a head's logits."""

    columns: Tensor

    def __init__(self, head: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("columns", torch.tensor(columns))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(features)[:, self.columns]
        return found


# ---------------------------------------------------------------- of runs


class Training:
    """A head while it is trained: its module, which is blank until `begin`.

    Args:
        section: of a recipe, `name` and settings.
        names: of the classes.
        dim: width of the features.
        examples: blank ones, as many as there are pictures.
    """

    def __init__(
        self,
        section: Any,
        names: Sequence[str],
        dim: int,
        examples: Callable[[int], Examples] = lambda passes: (
            torch.zeros(0, 1),
            torch.zeros(0).long(),
        ),
    ) -> None:
        self.facts = {**section.model_dump(mode="json"), "classes": list(names)}
        """See `Head.facts`"""
        self._section = section
        self.zero_shot: dict[str, Tensor] = {}
        """Those of its tensors that alpha mixes, at alpha 0, by name, once it has begun"""

        def counted(passes: int) -> Examples:
            blank = examples(passes)
            self.facts["examples"] = len(blank[1])
            return blank

        self.module = self._made(Start(torch.zeros(len(names), dim), 1.0, counted))

    def begin(self, start: Start) -> dict[str, Tensor]:
        """What it is to be trained from, by name; the caller gives it to the module."""
        state = _state(self._made(start))
        self.zero_shot = load(HEADS, self._section.name).at_zero(state)
        return {f"{TUNED}{name}": value for name, value in state.items()}

    def stored(self) -> dict[str, Tensor]:
        """What a run stores of it beside the trained tensors."""
        return {f"{ZERO_SHOT}{name}": value for name, value in self.zero_shot.items()}

    def _made(self, start: Start) -> nn.Module:
        made: nn.Module = load(HEADS, self._section.name).head(start, **self._section.arguments())
        return made


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def mixed(facts: Mapping[str, Any], stored: State, alpha: float) -> Head:
    """(1 - alpha) times the zero-shot head plus alpha times the trained one, tensor by tensor, as
    WiSE-FT has it; exactly the one at 0 and the other at 1. Tensors that are not stored at alpha 0
    are the trained ones at every alpha.

    Args:
        facts: see `Head.facts`.
        stored: its tensors in what a run stores.
    """
    start = {n.removeprefix(ZERO_SHOT): t for n, t in stored.items() if n.startswith(ZERO_SHOT)}
    state = {n.removeprefix(TUNED): t for n, t in stored.items() if n.startswith(TUNED)}
    for name, value in start.items():
        state[name] = torch.lerp(value, state[name].to(value), alpha) if alpha else value
    return _of(facts, state)


def split(stored: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a run stores of the towers, and what it stores of the head, by name."""
    own = {name: t for name, t in stored.items() if name.startswith((TUNED, ZERO_SHOT))}
    return {name: tensor for name, tensor in stored.items() if name not in own}, own


def mixed_whole(stored: State) -> bool:
    """Whether alpha mixes every tensor of a head, as of one that starts at the zero-shot head."""
    tuned = [name.removeprefix(TUNED) for name in stored if name.startswith(TUNED)]
    return all(f"{ZERO_SHOT}{name}" in stored for name in tuned)


def _of(facts: Mapping[str, Any], state: State) -> Head:
    module = load(HEADS | GATES, facts["name"]).of(state)
    return Head(list(facts["classes"]), module.eval().requires_grad_(False), dict(facts))


# ---------------------------------------------------------------- files


def write(folder: Path, head: Head) -> None:
    """Write a trained head beside the model that it is of; the same one gives the same bytes."""
    assert head.facts is not None
    tensors = {name: value.contiguous() for name, value in head.module.state_dict().items()}
    facts = {"schema_version": 1, **head.facts}
    write_atomic(folder / FILE, to_safetensors(tensors, metadata=facts_metadata(facts)))


def read(folder: Path) -> Head | None:
    """The head in a merged folder or a bundle; None if there is none.

    Raises:
        BrokenInput: it is damaged, or of a kind that this radapter does not know.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        facts, state = radapter_facts(path), load_file(path)
        del facts["schema_version"]
        if facts["name"] not in HEADS | GATES:
            raise BrokenInput(f"{path} is a head of an unknown kind: {facts['name']}.")
        return _of(facts, state)
    except BrokenInput:
        raise
    except Exception as error:  # safetensors' own, and whatever a damaged one gives
        raise BrokenInput(f"{path} is damaged: {error}. Merge, or export, again.") from None
