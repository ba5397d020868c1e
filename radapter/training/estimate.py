"""How much memory a training step will take, before there is one.

The step is run on fake tensors, which have shapes and types and no content, at the batch's size:
what is alive is counted after every operation. So methods, precisions, activation checkpointing and
micro batches need no formulas of their own, and a model that is on no disk can be asked about, too.
Not in it: what libraries take for themselves (CUDA's context, cuBLAS, the gaps between blocks).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from radapter.methods.attached import Attached
from radapter.methods.batch_rows import rows
from radapter.models import image_size
from radapter.objectives import contrastive
from radapter.objectives.terms import Features
from radapter.recipe import Recipe
from radapter.registry import OPTIMIZERS, load
from radapter.training.encoding import (
    encode_pictures,
    encode_tokens,
    match_pairs,
    picture_states,
    text_states,
)
from radapter.training.step import PRECISIONS


@dataclass(frozen=True)
class Memory:
    """Bytes in each process on its device at the peak of a step."""

    weights: int
    """Of the model, the trained ones and copies of the model"""
    optimizer: int
    """What it keeps of everything trained: Adam, two moments"""
    average: int
    pictures: int
    """Of a batch and the next one"""
    kept: int
    """By the forward pass for the backward pass"""
    rest: int
    """Gradients and what lives for a moment, at the peak beyond `kept`"""

    @property
    def total(self) -> int:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Sizes:
    """Of what one process encodes in a step."""

    batch: int
    """Pairs, over all processes"""
    pictures: int
    texts: int
    text_length: int
    micro_batch: int | None = None
    frames: int | None = None
    """Of a clip; None: pictures"""
    pairs: int = 0
    """Of a picture and a text, which the decoder reads together"""

    def shape(self) -> tuple[int, ...]:
        return (self.pictures,) if self.frames is None else (self.pictures, self.frames)


def step_memory(
    model: nn.Module, attached: Attached, recipe: Recipe, sizes: Sizes, copies: int = 0
) -> Memory:
    """What a step takes; nothing is computed, and model and method stay as they are.

    Args:
        model: with the method attached, and set up to run as the recipe says.
        copies: further copies of the model's weights in memory.
    """
    trained = list(attached.parameters())
    weights = _bytes([*model.parameters(), *model.buffers(), *trained])
    training = model.training
    model.train()
    try:
        with (
            torch.compiler.set_stance("force_eager"),
            _never_dropped(attached),
            _CastAsOnCuda(),
            FakeTensorMode(allow_non_fake_inputs=True) as fake,
            _Alive() as alive,
        ):
            known = [fake.from_tensor(t) for t in (*model.parameters(), *model.buffers(), *trained)]
            pictures, kept, peak = _step(model, recipe, sizes, alive, known)
    finally:
        model.train(training)
        for parameter in trained:
            parameter.grad = None
    return Memory(
        weights=weights
        + copies * _bytes(list(model.parameters()))
        + _bytes(list(attached.start.values())),
        optimizer=load(OPTIMIZERS, recipe.optimisation.name).COPIES * _bytes(trained),
        average=_bytes(list(attached.mean.values())),
        pictures=pictures,
        kept=kept - pictures,
        rest=peak - kept,
    )


def _step(
    model: nn.Module, recipe: Recipe, sizes: Sizes, alive: _Alive, known: Sequence[Tensor]
) -> tuple[int, int, int]:
    """Bytes of pictures, alive after the (last) forward pass, and at the peak, beside `known`.

    As `gradients.gradients` has it, with no more than two chunks of each tower.
    """
    alive.forget(known)
    precision = PRECISIONS[recipe.precision]
    device = next(model.parameters()).device
    images, following = (
        torch.empty(*sizes.shape(), 3, *image_size(model), dtype=torch.uint8, device=device)
        for _ in range(2)
    )
    tokens = torch.zeros(sizes.texts, sizes.text_length, dtype=torch.int64, device=device)
    of_pictures = images.nbytes + following.nbytes
    most = max(sizes.pictures, sizes.texts)
    part = min(sizes.micro_batch or most, most)

    def pictures(chunk: Tensor) -> tuple[Tensor, ...]:
        pixels = chunk.float().mul_(1.0)
        if sizes.pairs:
            return picture_states(model, pixels, precision)
        return (encode_pictures(model, pixels, precision),)

    def texts(chunk: Tensor) -> tuple[Tensor, ...]:
        if sizes.pairs:
            return text_states(None, model, chunk, precision)
        return (encode_tokens(model, chunk, precision),)

    towers = [(encode, inputs[:part]) for encode, inputs in ((pictures, images), (texts, tokens))]
    # What a second chunk finds: the gradients of the first one.
    chunks = 1 if part == most else 2
    kept = 0
    with rows(0, sizes.batch):
        with torch.set_grad_enabled(chunks == 1):
            graphs: list[Any] = [encode(chunk) for encode, chunk in towers]
            kept = alive.now
        features = [
            torch.empty(n, graphs[0][0].shape[-1], device=device, requires_grad=True)
            for n in (sizes.batch, sizes.texts)
        ]
        batch = {
            "groups": torch.zeros(sizes.batch, dtype=torch.int64, device=device),
            "text_of": torch.zeros(sizes.batch, dtype=torch.int64, device=device),
            "own": torch.zeros(sizes.batch, dtype=torch.bool, device=device),
        }
        # What another term takes is little beside it.
        now = Features(features[0], features[1], features[1][:0], model.logit_scale.exp())  # type: ignore[operator]
        contrast = contrastive.term(None).loss
        assert contrast is not None
        contrast(now, None, batch).backward()
        states: list[Tensor] = []
        if sizes.pairs:
            like = [own[1] for own in graphs]
            states = [torch.empty(sizes.batch, *own.shape[1:], device=device) for own in like]
            for whole in states:
                whole.requires_grad_().grad = torch.empty_like(whole)
            kept = max(kept, _read_together(model, sizes, states, precision, alive))
        for number, (encode, chunk) in enumerate(towers):
            for _ in range(chunks):
                graph = graphs[number] if chunks == 1 else encode(chunk)
                graphs[number] = None
                kept = max(kept, alive.now)
                trained = [rows for rows in graph if rows.requires_grad]
                if trained:
                    torch.autograd.backward(trained, [torch.empty_like(rows) for rows in trained])
                del graph, trained
    return of_pictures, kept, alive.peak


def _read_together(
    model: nn.Module,
    sizes: Sizes,
    states: Sequence[Tensor],
    precision: torch.dtype | None,
    alive: _Alive,
) -> int:
    """Run the decoder, forward and back, on no more than two chunks of pairs; the bytes that were
    alive after the (last) forward pass.

    Args:
        states: of all pictures, and of all texts.
    """
    part = min(sizes.micro_batch or sizes.pairs, sizes.pairs)
    some = torch.zeros(part, dtype=torch.int64, device=states[0].device)
    kept = 0
    for _ in range(1 if part == sizes.pairs else 2):
        logits = match_pairs(model, states[0][some], states[1][some], some, precision)
        kept = max(kept, alive.now)
        logits.backward(torch.empty_like(logits))
        del logits
    return kept


class _Alive(TorchDispatchMode):
    """Counts the bytes of all storages that operations give while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def forget(self, tensors: Sequence[Tensor]) -> None:
        """Count these no more: from now on, what comes beside them."""
        for tensor in tensors:
            self.known[tensor.untyped_storage()._cdata] = 0
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key, 0)


class _CastAsOnCuda(TorchFunctionMode):
    """LayerNorm on a copy in fp32, as CUDA's autocast has it and the CPU's has not: what is
    estimated on a CPU is most often for a GPU (the recipe's `gpu`)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.layer_norm and torch.is_autocast_enabled("cpu"):
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _never_dropped(attached: Attached) -> Iterator[None]:
    """No adapter is dropped as a whole, which is the step that takes most."""
    adapters: list[Any] = [
        a for a in attached.modules.values() if getattr(a, "drop_unit", "") == "adapter"
    ]
    before = [adapter.drop for adapter in adapters]
    for adapter in adapters:
        adapter.drop = 0.0
    try:
        yield
    finally:
        for adapter, drop in zip(adapters, before, strict=True):
            adapter.drop = drop


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())


def fitting_micro_batch(needs: Callable[[int], int], most: int, room: int) -> int | None:
    """The largest power of two below `most` with which a step `needs` no more than `room` bytes.

    Memory grows evenly with it: two sizes are tried, and the one that they point to.
    """
    one, two = needs(1), needs(2)
    if one > room:
        return None
    fits = 1 + (room - one) // max(1, two - one)
    size = 1 << (min(fits, most - 1).bit_length() - 1) if most > 1 else 1
    while size > 1 and needs(size) > room:
        size //= 2
    return size
