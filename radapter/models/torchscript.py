"""The tensors of a TorchScript archive, such as OpenAI's own files: its program is not run.

An archive is a zip: `data.pkl` pickles the modules with their attributes, `data/0` and so on are
the bytes of the tensors, `code/` is the program. Here a module becomes a plain holder of what it
has, and a name that is not listed below is an error.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radapter.errors import BrokenInput

NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""What OpenAI's modules keep as tensors beside their weights"""


class _Module:
    """Stands for any class of the archive's own."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)  # checks its bounds


NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): list
        for kind in ("int", "double", "bool", "tensor")
    },
}
STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of plain weights")
        return NAMES[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else empty
        return self._storages[key]


def is_one(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    return _pickled(path) is not None


def is_openais(path: Path) -> bool:
    """Whether it is one of OpenAI's own, whose modules keep what no one else's do."""
    pickled = _pickled(path) or b""
    return all(name.encode() in pickled for name in NO_WEIGHTS[:3])


def _pickled(path: Path) -> bytes | None:
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("/constants.pkl") for name in names):
            return None
        return next((archive.read(name) for name in names if name.endswith("/data.pkl")), b"")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of an archive by name, as its `state_dict` would give them.

    Raises:
        BrokenInput: it is damaged or no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n for n in archive.namelist() if n.endswith("/data.pkl")).split("/")[0]
            whole = _Reader(archive, root).load()
        found: dict[str, Tensor] = {}
        _collect(whole, "", found)
    except Exception as error:
        raise BrokenInput(
            f"{path} is a TorchScript archive, and its weights cannot be read ({error}). Where "
            "you trust the file, convert it: in Python, safetensors.torch.save_file(dict("
            f"torch.jit.load('{path}', 'cpu').float().state_dict()), 'weights.safetensors')."
        ) from None
    return found


def _collect(module: Any, prefix: str, found: dict[str, Tensor]) -> None:
    for name, value in module.state.items():
        if isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", found)
        elif isinstance(value, Tensor) and name not in NO_WEIGHTS:
            found[prefix + name] = value
