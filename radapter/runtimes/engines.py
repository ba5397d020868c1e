"""What runs a model, by the name that the command line has for it. Listing engines imports no
torch; opening one imports the module that it is in.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radapter import bundle
from radapter.errors import BrokenInput, MissingDependency, UsageError, nearest
from radapter.runtimes.trt import cuda, flavours
from radapter.runtimes.trt.fitting import check_engine, choose_engines

if TYPE_CHECKING:
    from radapter.runtimes import Runtime

TORCH_PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Engine:
    """What computes features, on one kind of device."""

    module: str
    """With `open_engine`, which takes this entry, a source and what `open` is given"""
    device: str = "cpu"
    precisions: tuple[str, ...] = bundle.PRECISIONS
    provider: str = ""
    """Of onnxruntime"""
    reference: bool = False
    """PyTorch: its source is a loaded model, where the others' is a bundle, and it is what these
    are compared with"""

    def open(self, source: Any, **settings: Any) -> Runtime:
        """The engine, ready to run.

        Args:
            source: a `LoadedModel` for a reference, else the folder of a bundle.
            settings: `precision` (of those that the source has; default: its first), `threads` (on
                the CPU), `weights_hash` (of the model that a bundle has to be made from).
        """
        runtime: Runtime = importlib.import_module(self.module).open_engine(
            self, source, **settings
        )
        return runtime


_PYTORCH, _ONNX = "radapter.runtimes.pytorch", "radapter.runtimes.onnx"
_HALF = ("fp32", "fp16")  # the operators of dynamic int8 are the CPU's
ENGINES = {
    "torch": Engine(_PYTORCH, "cpu", TORCH_PRECISIONS, reference=True),
    "torch-cuda": Engine(_PYTORCH, "cuda", TORCH_PRECISIONS, reference=True),
    "onnx": Engine(_ONNX, "cpu", provider="CPUExecutionProvider"),
    "onnx-cuda": Engine(_ONNX, "cuda", _HALF, "CUDAExecutionProvider"),
    "onnx-tensorrt": Engine(_ONNX, "cuda", _HALF, "TensorrtExecutionProvider"),
    "tensorrt": Engine("radapter.runtimes.trt.runtime", "cuda"),
}
EXPORTED = tuple(name for name, engine in ENGINES.items() if not engine.reference)
"""Those that a bundle has"""
PROGRAMS = tuple(dict.fromkeys(name.partition("-")[0] for name in ENGINES))
"""What runs a model where the device is named beside it: torch, onnx, tensorrt"""


def open_engine(
    folder: Path | str,
    engine: str,
    *,
    precision: str | None = None,
    weights_hash: str | None = None,
) -> Runtime:
    """A bundle's engine, ready to run. There is no fallback to another engine.

    Args:
        folder: the bundle.
        engine: one of `EXPORTED`: `onnx`, onnxruntime on the CPU; `onnx-cuda` and `onnx-tensorrt`,
            by those of its providers; `tensorrt`, the engines that `radapter export --trt` built.
        precision: of those that it has. Default: its first.
        weights_hash: of the merged model that the bundle has to be made from, if that matters.

    Raises:
        UsageError: there is no engine of that name, or not in that precision.
        BrokenInput: the bundle is damaged or stale, has no such engine, or one for another GPU.
        MissingDependency: a package or a GPU is missing.
    """
    if engine not in EXPORTED:
        raise UsageError(f"Unknown engine '{engine}'.{nearest(engine, list(EXPORTED))}")
    return ENGINES[engine].open(Path(folder), precision=precision, weights_hash=weights_hash)


def runnable(folder: Path | str) -> tuple[list[str], dict[str, str]]:
    """The engines of a bundle that run here: `onnx`, and `tensorrt` where it was built and there
    is a GPU; and the reason for what was built but does not run.

    Raises:
        BrokenInput: the bundle has no readable manifest.
    """
    manifest: Mapping[str, Any] = bundle.read_manifest(folder)
    if not manifest.get("engines"):
        return ["onnx"], {}
    import torch

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
            f"{Path(folder) / bundle.MANIFEST} is damaged: {error!r}. {bundle.AGAIN}"
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
