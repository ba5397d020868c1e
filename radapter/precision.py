"""The precision of computations: fp32 without TF32, and whether a device has bf16."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


@contextmanager
def exact_fp32() -> Iterator[None]:
    """No TF32, and no bf16, within products and convolutions of fp32, in training as in evaluation:
    torch's defaults differ between the two kinds, and a process may have changed either.

    torch has an older switch for both and, from 2.9 on, a newer one for each; once a process has
    used the newer ones, reading the older may be an error. So both are set, and put back.
    """
    switches = _switches()
    newer = [switch.fp32_precision for switch in switches]
    older: dict[str, Any] = {}
    with suppress(RuntimeError):
        older["products"] = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        older["convolutions"] = torch.backends.cudnn.allow_tf32
    _set_older({"products": "highest", "convolutions": False}, older)
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        _set_older(older, older)
        for switch, value in zip(switches, newer, strict=True):
            switch.fp32_precision = value


def _switches() -> list[Any]:
    """torch's newer switches, as far as this torch has them."""
    kinds = {"cuda": ("matmul",), "cudnn": ("conv", "rnn"), "mkldnn": ("matmul", "conv", "rnn")}
    found = [
        getattr(getattr(torch.backends, backend), kind, None)
        for backend, names in kinds.items()
        for kind in names
    ]
    return [switch for switch in found if hasattr(switch, "fp32_precision")]


def _set_older(values: dict[str, Any], readable: dict[str, Any]) -> None:
    """What could not be read is left alone: it could not be put back."""
    if "products" in readable:
        torch.set_float32_matmul_precision(values["products"])
    if "convolutions" in readable:
        torch.backends.cudnn.allow_tf32 = values["convolutions"]


def cuda_has_bf16() -> bool:
    """Whether there is a CUDA device that computes in bf16 itself (not one that emulates it)."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies matrices in bf16, as torch asks before it calls oneDNN. Where it
    does not, torch takes a plain loop, several times slower than fp32. True where torch does not
    say.
    """
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asked is None or bool(asked())


def on_cpu(precision: str, what: str) -> str:
    """The precision to compute in on this CPU: fp32 in place of a bf16 that it emulates. There fp32
    takes a fraction of the time, and rounds less. A warning names what is computed."""
    if precision != "bf16" or cpu_has_bf16():
        return precision
    warnings.warn(f"This CPU has no bf16: {what} in fp32.", stacklevel=2)
    return "fp32"
