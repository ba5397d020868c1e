"""ONNX files in fp16 and Q/DQ int8 for the engine tests, made as TensorRT wants them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn
from torch.export import Dim

from radapter import models
from radapter.export.towers import ImageTower, TextTower


class HalfImageTower(ImageTower):
    """float32 pictures in, float16 inside, the normalization and what comes out in float32."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return super().forward(pixel_values.half())


def export_half(
    loaded: models.LoadedModel,
    folder: Path,
    names: Sequence[str] = ("pixel_values", "input_ids"),
) -> dict[str, Path]:
    """The towers with these inputs in fp16, by input name."""
    model = copy.deepcopy(loaded.model).eval().requires_grad_(False).half()
    towers = {"pixel_values": HalfImageTower(model), "input_ids": TextTower(model)}
    files = {"pixel_values": "vision_model_fp16.onnx", "input_ids": "text_model_fp16.onnx"}
    return {name: _export(towers[name], folder / files[name], loaded) for name in names}


def example(loaded: models.LoadedModel, name: str, n: int) -> Tensor:
    """Some pictures or texts."""
    if name == "input_ids":
        texts = ["a cat", "a photo of two dogs", "the sea at night", "", "blue"]
        return models.shorten(loaded.model, loaded.tokenizer((texts * n)[:n]))
    size = loaded.model.visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))


def _export(tower: nn.Module, path: Path, loaded: models.LoadedModel) -> Path:
    picture = isinstance(tower, ImageTower)
    name = "pixel_values" if picture else "input_ids"
    axes = {0: Dim("batch", min=1, max=2**16)}
    if not picture:
        axes |= {1: Dim("length", min=2, max=loaded.model.context_length)}
    with torch.no_grad():
        program = torch.onnx.export(
            tower.eval(),
            (example(loaded, name, 3),),
            dynamo=True,
            opset_version=20,
            input_names=[name],
            output_names=["image_embeds" if picture else "text_embeds"],
            dynamic_shapes={name: axes},
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    return path


class Calibration(CalibrationDataReader):
    def __init__(self, name: str, batches: list[np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantize(loaded: models.LoadedModel, source: Path, name: str, target: Path) -> Path:
    """Q/DQ int8 of an fp32 file: symmetric, signed, per channel, matrix products only."""
    batch = example(loaded, name, 4).numpy()
    quantize_static(
        source,
        target,
        Calibration(name, [batch]),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        # TensorRT takes no int32 biases, which onnxruntime would make of those that are not zero.
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    return target


def export_single(loaded: models.LoadedModel, folder: Path, name: str) -> Path:
    """The tower with this input in fp32."""
    tower = ImageTower if name == "pixel_values" else TextTower
    return _export(tower(copy.deepcopy(loaded.model).eval()), folder / "model.onnx", loaded)
