"""The NVIDIA driver, asked directly: which GPUs there are, without loading CUDA or torch.

Some TensorRT versions crash the process where a runtime is made without a driver, so this is asked
first. It loads libcuda and calls cuInit, nothing else of CUDA; no GPU is an ordinary answer.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

from radapter.errors import MissingDependency

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
REASONS = {
    100: "no GPU is visible (CUDA_VISIBLE_DEVICES?)",
    803: "the driver and its library do not fit each other",
    804: "the driver is too old",
    999: "unknown error of the driver",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the driver describes it."""

    name: str
    """As the driver calls it, such as `NVIDIA GeForce RTX 4090`"""
    compute_capability: str
    """Such as `8.9`"""


def gpus() -> list[Gpu]:
    """The GPUs in the driver's order, which is torch's too.

    Raises:
        MissingDependency: no driver, or it finds no GPU; the message says which.
    """
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        raise MissingDependency(
            f"No NVIDIA driver here ({LIBRARY} cannot be loaded), and TensorRT runs on NVIDIA "
            "GPUs only. Use a machine with one, or `--runtime onnx`."
        ) from None
    _call(driver, "cuInit", 0)
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise MissingDependency(f"The NVIDIA driver finds no GPU: {REASONS[100]}.")
    return [_gpu(driver, index) for index in range(count.value)]


def gpu(index: int) -> Gpu:
    """The GPU that torch calls `cuda:<index>`.

    Raises:
        MissingDependency: no driver, or no such GPU.
    """
    found = gpus()
    if not 0 <= index < len(found):
        raise MissingDependency(f"There is no GPU {index} here, only {len(found)}.")
    return found[index]


def _gpu(driver: Any, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), MAJOR, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def _call(driver: Any, function: str, *arguments: Any) -> None:
    code = getattr(driver, function)(*arguments)
    if code:
        reason = REASONS.get(code, "see NVIDIA's list of CUresult codes")
        raise MissingDependency(
            f"The NVIDIA driver fails in {function} with code {code}: {reason}."
        )
