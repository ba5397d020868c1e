"""Several processes (torchrun's ranks) as one: who does what, and what they exchange.

With one process every function here gives what it is given. The parts of a batch's gradients are
added up by hand, where DistributedDataParallel would do it during the backward pass: adapters are
no submodules of the model, a batch may take several passes (`gradients`), and a rank may have no
picture of it. What is trained is small, so there is little to hide behind the backward pass.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from radapter.errors import RadapterError, ran_out_of_memory

CPU = torch.device("cpu")
TIMEOUT = timedelta(minutes=30)
"""A rank that is silent for longer is lost: a validation or a checkpoint may take its time."""


class RankLost(RadapterError):
    """Another rank stopped: its error is the cause."""

    exit_code = 4


def rank() -> int:
    """The number of this process, from 0; 0 where it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def alone() -> bool:
    """Whether this is the only process."""
    return world_size() == 1


def is_main_process() -> bool:
    """Whether this rank is the one that writes."""
    return rank() == 0


@contextlib.contextmanager
def joined(device: torch.device = CPU) -> Iterator[None]:
    """Join the ranks that torchrun started, if it did, until the end; `device` is this one's.

    After an error NCCL's group stays as it is: to leave it is to wait for what the others never
    send. The process has to end with it (`stuck`).
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with _as_rank_lost():
        if device.type == "cuda":
            # Tensors on the CPU go through gloo, those on a GPU through NCCL, which has to know
            # each rank's GPU before the first exchange.
            torch.cuda.set_device(device)
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=TIMEOUT)
    failed = True
    try:
        yield
        failed = False
    finally:
        if not failed or device.type != "cuda":
            dist.destroy_process_group()


def stuck() -> bool:
    """Whether this process is still in a group: a usual exit might wait for it without end."""
    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def _as_rank_lost() -> Iterator[None]:
    """torch's error about another rank becomes RankLost."""
    try:
        yield
    except RuntimeError as error:
        if ran_out_of_memory(error):  # here, not there
            raise
        raise RankLost(f"Another rank stopped, or cannot be reached: {error}") from error


def share(total: int) -> slice:
    """The part of `total` things that is this rank's; the parts differ by one at most."""
    return slice(total * rank() // world_size(), total * (rank() + 1) // world_size())


def add_up(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if not alone():
        with _as_rank_lost():
            dist.all_reduce(tensor)
    return tensor


def gather(own: Tensor, first: int, total: int) -> Tensor:
    """Rows of all ranks, [total, ...]; `own` are those from `first` on. Any rank may have none."""
    if alone():
        return own
    # Adding zeros is exact, and takes parts of different sizes, which all_gather does not.
    rows = own.new_zeros(total, *own.shape[1:])
    rows[first : first + len(own)] = own
    return add_up(rows)


def in_turns(chunks: Sequence[Sequence[Any]], encode: Callable[[Any], Tensor]) -> Tensor:
    """`encode` of all chunks under each other, each chunk by one rank.

    Args:
        chunks: the same in every rank.
        encode: chunk -> a row for each of its things.
    """
    own = {i: encode(chunks[i]) for i in range(rank(), len(chunks), world_size())}
    if alone():
        return torch.cat(list(own.values()))
    ends = list(itertools.accumulate(map(len, chunks), initial=0))
    width = max(all_gather_object(max((rows.shape[1] for rows in own.values()), default=0)))
    rows = torch.zeros(ends[-1], width)
    for i, found in own.items():
        rows[ends[i] : ends[i + 1]] = found
    return add_up(rows)


def all_gather_object(value: Any) -> list[Any]:
    """The value of each rank, in rank order."""
    if alone():
        return [value]
    said: list[Any] = [None] * world_size()
    with _as_rank_lost():
        dist.all_gather_object(said, value)
    return said


def anyone(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    return bool(add_up(torch.tensor(int(flag))))


def wait_for_all() -> None:
    """Return once every process has come here."""
    anyone(False)


def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Add up the gradients that the ranks have of their parts of a batch."""
    if alone():
        return
    # One that no rank has stays None, as in one process: the optimizer leaves it alone.
    given = add_up(torch.tensor([int(p.grad is not None) for p in parameters]))
    gradients = []
    # Each by itself: parts of one long row would be added up in another order, to other last bits.
    for parameter, n in zip(parameters, given.tolist(), strict=True):
        if n:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    with _as_rank_lost():
        for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()


def exchange(batch: dict[str, Any]) -> dict[str, Any]:
    """A rank's batch without the pictures that other ranks could not read, as in one process.

    Args:
        batch: what `radapter.data.pairs.collate` makes of a rank's batch: texts and groups of all,
            pictures of its own share.

    Returns:
        The batch with `broken` of all ranks, and `first`, the row of the rank's first picture.
    """
    if alone():
        return batch
    places, size = batch["places"], batch["size"]
    missing = torch.ones(size, dtype=torch.int64)
    missing[places] = 0
    missing = add_up(missing)
    if not missing.any():
        return batch
    broken: dict[str, Any] = {
        name: [message for messages in all_gather_object(batch[name]) for message in messages]
        for name in ("broken", "unlabelled_broken")
        if name in batch
    }
    keep = missing[places] == 0
    if not keep.any():
        return {**broken, "groups": torch.empty(0)}
    number: dict[int, int] = {}
    text_of = [
        number.setdefault(t, len(number)) if t >= 0 else t for t in batch["text_of"][keep].tolist()
    ]
    more: dict[str, Any] = {name: batch[name][keep] for name in ("domains",) if name in batch}
    if "labelled" in batch:
        more |= divided(text_of, int(keep[: batch["labelled"]].sum()))
    return {
        **batch,
        "texts": [batch["texts"][text] for text in number],
        "tokens": batch["tokens"][list(number)],
        "text_of": torch.tensor(text_of),
        "groups": batch["groups"][keep],
        "own": batch["own"][keep],
        "edits": [edit for edit, kept in zip(batch["edits"], keep, strict=False) if kept],
        "first": int(keep[: batch["first"]].sum()),
        **broken,
        **more,
    }


def divided(text_of: list[int], labelled: int) -> dict[str, int]:
    """What a batch says of its rows where only the first `labelled` ones are: how many these are,
    and how many texts they have."""
    return {"labelled": labelled, "labelled_texts": len(set(text_of[:labelled]))}
