"""Versions of the packages that a score could depend on."""

from __future__ import annotations

from importlib import metadata

PACKAGES = (
    "radapter", "torch", "torchvision", "open_clip_torch", "timm", "transformers", "onnxruntime",
    "Pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """By package; what is not installed is left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
