"""Versions of the packages that a number, a file or a bug report depends on."""

from __future__ import annotations

from importlib import metadata

SCORES = (
    "radapter", "torch", "torchvision", "open_clip_torch", "timm", "transformers", "onnxruntime",
    "Pillow",
)  # fmt: skip
TRAINING = ("radapter", "torch", "torchvision", "open_clip_torch", "numpy", "safetensors")
BUNDLES = (
    "radapter", "torch", "open_clip_torch", "onnx", "onnxscript", "onnxruntime", "tokenizers",
)  # fmt: skip
MACHINE = (
    "torch", "torchvision", "open_clip_torch", "onnx", "onnxscript", "onnxruntime",
    "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13", "safetensors",
)  # fmt: skip


def versions(packages: tuple[str, ...] = SCORES) -> dict[str, str]:
    """By package; what is not installed is left out."""
    installed = {}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
