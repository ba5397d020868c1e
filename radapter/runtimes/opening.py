"""A bundle's engine by the name that the command line has for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from radapter import bundle
from radapter.errors import BrokenInput, MissingDependency, UsageError, nearest
from radapter.runtimes import Runtime, cuda, flavours
from radapter.runtimes.engines import check_engine, choose_engines
from radapter.runtimes.onnx import NAMES, OnnxRuntime
from radapter.runtimes.tensorrt import TensorRTRuntime

Engine = Literal["onnx", "onnx-cuda", "onnx-tensorrt", "tensorrt"]


def open_engine(
    folder: Path | str,
    engine: str,
    *,
    precision: str | None = None,
    weights_hash: str | None = None,
) -> Runtime:
    """A bundle's engine, ready to run. What was asked for serves, or it is an error.

    Args:
        folder: the bundle.
        engine: `onnx`, onnxruntime on the CPU; `onnx-cuda` and `onnx-tensorrt`, by those of its
            providers; `tensorrt`, the engines that `radapter export --trt` built.
        precision: of those that it has. Default: its first.
        weights_hash: of the merged model that the bundle has to be made from, if that matters.

    Raises:
        UsageError: there is no engine of that name, or not in that precision.
        BrokenInput: the bundle is damaged or stale, has no such engine, or one for another GPU.
        MissingDependency: a package or a GPU is missing.
    """
    if engine == "tensorrt":
        return TensorRTRuntime(folder, precision=precision, weights_hash=weights_hash)
    for provider, name in NAMES.items():
        if name == engine:
            return OnnxRuntime(folder, provider, precision=precision, weights_hash=weights_hash)
    raise UsageError(f"No engine '{engine}'.{nearest(engine, list(get_args(Engine)))}")


def runnable(folder: Path | str) -> tuple[list[str], dict[str, str]]:
    """The engines of a bundle that run here: `onnx`, and `tensorrt` where it was built and there
    is a GPU; and the reason for what was built but does not run.

    Raises:
        BrokenInput: the bundle has no readable manifest.
    """
    manifest: Mapping[str, Any] = bundle.read_manifest(folder)
    if not manifest.get("engines"):
        return ["onnx"], {}
    try:
        gpu = cuda.gpu(0)
        if not torch.cuda.is_available():
            raise MissingDependency(
                f"This torch ({torch.__version__}) does not use the {gpu.name} that the driver "
                "finds: install one that is built with CUDA."
            )
        for precision in precisions_of(folder, "tensorrt"):
            chosen = choose_engines(Path(folder), manifest, None, precision, gpu)
            for entry in chosen.values():
                flavour = flavours.FLAVOURS[entry["flavour"]]
                flavours.choose(flavour.name)
                check_engine(entry, manifest, flavours.load(flavour), gpu)
    except (MissingDependency, BrokenInput) as error:
        return ["onnx"], {"tensorrt": str(error)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenInput(
            f"{Path(folder) / bundle.MANIFEST} is damaged: {error!r}. Export the bundle again."
        ) from None
    return ["onnx", "tensorrt"], {}


def precisions_of(folder: Path | str, engine: str) -> list[str]:
    """The precisions that a bundle has for an engine, the preferred first.

    Raises:
        BrokenInput: the bundle has no readable manifest.
    """
    manifest: Mapping[str, Any] = bundle.read_manifest(folder)
    if engine != "tensorrt":
        return list(manifest.get("precisions") or [bundle.PRECISIONS[0]])
    built = {entry["precision"] for entry in manifest.get("engines", [])}
    return [p for p in bundle.PRECISIONS if p in built] or [bundle.PRECISIONS[0]]
