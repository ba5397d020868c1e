"""Files of weights, also those that others wrote: read without running what is in them."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from radapter.errors import BrokenInput
from radapter.files import safetensors_metadata
from radapter.models import torchscript

ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs put the weights, beside optimizer and epoch"""
PREFIXES = ("module.", "model.")
"""What DistributedDataParallel and Lightning put before every name"""
COMPILED = "_orig_mod."
"""What torch.compile puts before the names of what it compiled: all, or a tower's"""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without what training programs wrap them in.

    Raises:
        BrokenInput: it is missing or damaged, holds no tensors, or holds what only running code
            could read.
    """
    if not path.is_file():
        raise BrokenInput(f"Weights not found: {path}.")
    if path.suffix == ".safetensors":
        safetensors_metadata(path)
        content: Any = load_file(path)
    elif torchscript.is_one(path):
        content = torchscript.read(path)
    else:
        content = _read_torch(path)
    return _unwrapped(path, content)


def _read_torch(path: Path) -> Any:
    """By torch, which with `weights_only` builds tensors and plain values, and nothing else."""
    scalar = np.array(0.0)[()].__reduce__()[0]
    rebuild = np.zeros(1).__reduce__()[0]
    harmless: list[Any] = [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(letter)) for letter in "?bhilqBHILQefd"},
        # As numpy 1 and numpy 2 name them.
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    ]
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unusual protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+) ", str(error)):
            raise BrokenInput(
                f"{path} is a pickle that holds more than tensors: {found[1]}. Reading that could "
                "run code, so it is not read. Where you trust the file, write its weights alone, "
                "as safetensors.torch.save_file(state_dict, 'weights.safetensors') does."
            ) from None
        raise BrokenInput(f"{path} is not a weights file that torch can read.") from None
    except Exception as error:
        raise BrokenInput(f"{path} is damaged, or not a weights file: {plain(error)}") from None


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and (
        inner := [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    ):
        content = inner[0]
    held = content if isinstance(content, Mapping) else {}
    state = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if not state:
        what = f"the keys {', '.join(map(str, list(held)[:5]))}" if held else type(content).__name__
        raise BrokenInput(f"{path} holds no tensors by name, but {what}.")
    for _ in range(3):  # they come in any order
        state = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def put_into(model: nn.Module, path: Path, name: str, state: Mapping[str, Tensor] | None) -> None:
    """Load a file into a model as open_clip does, which knows the names of other programs, too.

    Args:
        name: of the model, for messages.
        state: what `read` found in it; None: open_clip reads it (arrays of big_vision).

    Raises:
        BrokenInput: they do not fit.
    """
    factory = open_clip.factory
    if state is None:
        factory.load_checkpoint(model, str(path))
        return
    # open_clip converts what it reads from a path, and from nothing else.
    with mock.patch.object(factory, "load_state_dict", return_value=dict(state)):
        strictly(name, lambda: factory.load_checkpoint(model, str(path), strict=False))


def strictly(name: str, load: Callable[[], Any]) -> None:
    """Run a `load_state_dict(strict=False)`; BrokenInput if a tensor is missing or unexpected."""
    try:
        missing, unexpected = load()
    except Exception as error:
        sizes = re.findall(r"size mismatch for (\S+): .*?\[(.*?)\].*?\[(.*?)\]", str(error))
        each = [f"{key} is [{file}] in the file, [{own}] in the model" for key, file, own in sizes]
        why = _few(each, "of another shape") if each else plain(error)
        raise BrokenInput(f"{name} cannot be loaded: {why}.") from error
    told = [_few(missing, "missing"), _few(unexpected, "unknown to the model")]
    if missing or unexpected:
        raise BrokenInput(
            f"{name} cannot be loaded, its weights are not of this architecture: "
            f"{' and '.join(filter(None, told))}."
        )


def _few(names: Iterable[str], what: str) -> str:
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} tensor{'s' * (len(names) > 1)} {what} ({', '.join(names[:3])}{more})"


def plain(error: BaseException) -> str:
    """The first sentence of a library's error, without the codes that colour a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(text.split())[:200] or type(error).__name__
