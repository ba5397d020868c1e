"""TensorRT and TensorRT-RTX: which is installed, in which version, and what it says.

Both share one Python interface, one builder and one runtime here. They are installed apart
and their engines are not each other's.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from radapter.errors import MissingDependency, RadapterError, UsageError, nearest
from radapter.runtimes.trt import cuda


@dataclass(frozen=True)
class Flavour:
    """One of the libraries that build and run engines."""

    name: str
    """On the command line and in manifests"""
    title: str
    module: str
    suffix: str
    """Of engine files: `vision_model.<suffix>.engine`"""
    install: str


TENSORRT = Flavour("tensorrt", "TensorRT", "tensorrt", "trt", 'pip install "radapter[trt]"')
RTX = Flavour("rtx", "TensorRT-RTX", "tensorrt_rtx", "rtx", 'pip install "radapter[trt-rtx]"')
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, RTX)}


def installed() -> list[Flavour]:
    """The flavours whose Python package is here; whether it loads, `load` says."""
    return [flavour for flavour in FLAVOURS.values() if find_spec(flavour.module)]


def choose(name: str | None = None) -> Flavour:
    """The flavour to build with: the one named, else TensorRT where it is installed and there is
    a GPU (it needs one), else TensorRT-RTX.

    Raises:
        UsageError: there is no flavour of that name.
        MissingDependency: it is not installed, or none is.
    """
    if name is not None and name not in FLAVOURS:
        raise UsageError(f"Unknown TensorRT flavour '{name}'.{nearest(name, list(FLAVOURS))}")
    found = installed()
    if name is None and found == [TENSORRT, RTX]:
        try:
            cuda.gpus()
        except MissingDependency:
            return RTX
    for flavour in found:
        if name in (None, flavour.name):
            return flavour
    if name is not None:
        wanted = FLAVOURS[name]
        raise MissingDependency(f"{wanted.title} is not installed. Type first: {wanted.install}")
    raise MissingDependency(
        f"Neither TensorRT-RTX nor TensorRT is installed. Type first: {RTX.install} (builds "
        f"engines without a GPU, for GeForce and RTX GPUs), or {TENSORRT.install} (builds on the "
        "GPU that will run them, any NVIDIA GPU)."
    )


def load(flavour: Flavour) -> Any:
    """The flavour's Python module.

    Raises:
        MissingDependency: it is not installed, or its libraries do not load.
    """
    try:
        trt = importlib.import_module(flavour.module)
        trt.Builder  # noqa: B018 - absent from what an uninstall leaves behind
        return trt
    except Exception as error:  # a missing library is an OSError, an ImportError or a RuntimeError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MissingDependency(
            f"{flavour.title} does not load ({reason}). Type first: {flavour.install}"
        ) from None


@functools.cache
def logger(flavour: Flavour) -> Any:
    """The one logger of a flavour: the library keeps the first that it gets, and no other.

    Its `lines` are (severity, text) pairs, the newest last; nothing is printed.
    """
    trt = load(flavour)

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (
                trt.ILogger.INTERNAL_ERROR,
                trt.ILogger.ERROR,
                trt.ILogger.WARNING,
            ):
                worst = "warning" if severity == trt.ILogger.WARNING else "error"
                self.lines.append((worst, " ".join(text.split())))

    return Logger()


@contextlib.contextmanager
def listening(flavour: Flavour) -> Iterator[Any]:
    """The flavour's logger, emptied; what it hears is added to the details of our own errors."""
    log = logger(flavour)
    log.lines.clear()
    try:
        yield log
    except RadapterError as error:
        error.details.setdefault("log", [f"{severity}: {text}" for severity, text in log.lines])
        raise


def reason(lines: list[tuple[str, str]]) -> str:
    """The error among a logger's lines that says most: the first that is not the missing driver
    (code 35, which the builder of TensorRT-RTX meets and does without)."""
    errors = [text for severity, text in lines if severity == "error"]
    telling = [text for text in errors if "cudaError 35" not in text] or errors
    return telling[0][:500] if telling else "it gave no reason"
