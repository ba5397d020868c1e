"""onnxruntime's execution providers: their names, and what a session is opened with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from radapter import bundle
from radapter.runtimes import BATCH
from radapter.runtimes.engines import ENGINES

NAMES = {engine.provider: name for name, engine in ENGINES.items() if engine.provider}
CPU, CUDA, TENSORRT = NAMES


def chosen(provider: str, manifest: Mapping[str, Any], path: str, index: int) -> list[Any]:
    """What a session is opened with: the provider with its options, the best first."""
    if provider == CPU:
        return [CPU]
    cuda = {
        "device_id": str(index),
        "use_tf32": "0",  # on by default: fp32 would have fp16's digits
        "cudnn_conv_algo_search": "HEURISTIC",  # not every algorithm, for every new batch size
    }
    if provider == CUDA:
        return [(CUDA, cuda)]
    # CUDA is for the nodes that TensorRT leaves; `served` sees that they are no work.
    tensorrt = {"device_id": str(index)} | tensorrt_options(manifest, path)
    return [(TENSORRT, tensorrt), (CUDA, cuda)]


def may_use_tf32() -> bool:
    """onnxruntime's TensorRT provider has no option for it; NVIDIA's own variable forbids it."""
    return os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def largest_batch(manifest: Mapping[str, Any]) -> int:
    """The largest batch that onnxruntime's TensorRT provider builds for."""
    return max(int(manifest["max_batch"]), BATCH)


def tensorrt_options(manifest: Mapping[str, Any], path: str) -> dict[str, str]:
    """Options of onnxruntime's TensorRT provider for one file of a bundle: the shapes to build for,
    and the graph's precision.

    The provider is TensorRT 10, which has flags of precision; one fp16 session needs it. Its own
    cache of engines stays off: what it would load next time is checked by nobody.
    """
    tower = bundle.tower_of(path)
    assert tower
    height, width = (int(size) for size in manifest["image_size"])
    context = int(manifest["context_length"])
    largest = largest_batch(manifest)
    shortest = context if manifest["text_length"] == "fixed" else 2

    def shapes(batch: int, length: int) -> str:
        sizes = {"height": height, "width": width, "length": length}
        sizes["frames"] = int(manifest.get("frames", 1))
        axes = (sizes[axis] if isinstance(axis, str) else axis for axis in tower.axes)
        return f"{tower.input}:{'x'.join(map(str, (batch, *axes)))}"

    return {
        "trt_profile_min_shapes": shapes(1, shortest),
        "trt_profile_opt_shapes": shapes(max(1, largest // 4), context),
        "trt_profile_max_shapes": shapes(largest, context),
        "trt_fp16_enable": str("_fp16" in path),
        "trt_engine_cache_enable": "False",
    }
