"""Which engines of a bundle may be loaded here: of one flavour, for this version and this GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radapter import bundle
from radapter.errors import BrokenInput
from radapter.runtimes.trt import cuda, flavours
from radapter.runtimes.trt.flavours import RTX


def choose_engines(
    folder: Path,
    manifest: Mapping[str, Any],
    flavour: str | None,
    precision: str | None,
    gpu: cuda.Gpu | None = None,
) -> dict[bundle.Tower, Mapping[str, Any]]:
    """The manifest's entries of engines by tower, of one flavour and precision; of several
    flavours, one that is installed here and whose engines are for this GPU, if there is one.

    Raises:
        BrokenInput: there are none.
    """
    found: dict[tuple[str, str], dict[bundle.Tower, Mapping[str, Any]]] = {}
    for entry in manifest.get("engines", []):
        if tower := bundle.tower_of(entry["onnx"]):
            found.setdefault((entry["precision"], entry["flavour"]), {})[tower] = entry
    wanted_towers = bundle.towers(manifest.get("frames"))
    installed = {found.name for found in flavours.installed()}
    whole = sorted(
        (key for key, towers in found.items() if len(towers) == len(wanted_towers)),
        key=lambda key: (
            key[1] not in installed,
            gpu is not None and not all(_gpu_fits(e, gpu) for e in found[key].values()),
            bundle.PRECISIONS.index(key[0]),
        ),
    )
    for key in whole:
        if precision in (None, key[0]) and flavour in (None, key[1]):
            return found[key]
    wanted = " ".join(filter(None, (flavour, precision)))
    has = ", ".join(f"{a} ({b})" for a, b in whole)
    raise BrokenInput(
        f"Bundle {folder} has no {wanted + ' ' if wanted else ''}engines of both towers"
        f"{', only ' + has if has else ''}. Type first: radapter export --trt"
    )


def check_engine(
    entry: Mapping[str, Any], manifest: Mapping[str, Any], trt: Any, gpu: cuda.Gpu
) -> None:
    """Check that an engine is for this version and this GPU, and from the bundle's ONNX file.

    Raises:
        BrokenInput: it is not; the message has the command that builds it anew.
    """
    flavour = flavours.FLAVOURS[entry["flavour"]]
    again = f"Type: radapter export --trt --trt-flavour {flavour.name}"
    files, onnx = manifest["files"], entry["onnx"]
    hashes = files.get(onnx), files.get(f"{onnx}.data")
    if hashes != (entry["onnx_sha256"], entry.get("data_sha256")):
        raise BrokenInput(
            f"{entry['file']} is stale: {entry['onnx']} is not the file that it was built from. "
            f"{again}"
        )
    if not _version_fits(entry, trt.__version__):
        raise BrokenInput(
            f"{entry['file']} was built by {flavour.title} {entry['version']}, but "
            f"{trt.__version__} is installed, and engines are bound to their version. {again}"
        )
    if _gpu_fits(entry, gpu):
        return
    if flavour == RTX:
        known = f"SM{gpu.compute_capability.replace('.', '')}" in trt.ComputeCapability.__members__
        again += f" --trt-gpu {gpu.compute_capability}"
        if not known:
            again = (
                "TensorRT-RTX does not build for it. Type: radapter export --trt --trt-flavour "
                f"tensorrt (after {flavours.TENSORRT.install})"
            )
    raise BrokenInput(
        f"{entry['file']} was built for {bundle.built_for(entry)}, but the GPU is {gpu.name} "
        f"({gpu.compute_capability}). {again}"
    )


def _version_fits(entry: Mapping[str, Any], version: str) -> bool:
    """Whether versions are equal; a version-compatible engine also fits a later minor version."""
    if entry["version"] == version:
        return True
    then, now = ([int(n) for n in v.split(".")[:3]] for v in (entry["version"], version))
    return bool(entry["version_compatible"]) and then[0] == now[0] and then <= now


def _gpu_fits(entry: Mapping[str, Any], gpu: cuda.Gpu) -> bool:
    if "target_gpus" in entry:
        return gpu.compute_capability in entry["target_gpus"]
    built = entry["gpu"]
    if entry["hardware"] == "ampere-plus":
        return float(gpu.compute_capability) >= 8
    if entry["hardware"] == "same-compute-capability":
        return bool(built["compute_capability"] == gpu.compute_capability)
    return bool(built == vars(gpu))
