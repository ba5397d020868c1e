"""TensorRT engines: not in this version."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from radapter.errors import MissingDependency


def build(bundle: Path | str) -> NoReturn:
    """Build the bundle's TensorRT engines; this version cannot.

    Raises:
        MissingDependency: always, saying what is installed and what is not.
    """
    found = [name for name in ("tensorrt", "tensorrt_rtx") if find_spec(name)]
    installed = f"{' and '.join(found)} installed" if found else "TensorRT is not installed either"
    raise MissingDependency(
        f"This version of radapter builds no TensorRT engines ({installed}). "
        "`radapter export` without --trt writes ONNX files, which TensorRT's own tools read."
    )
