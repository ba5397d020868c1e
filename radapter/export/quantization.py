"""int8 files from fp32 ones, in the two forms that the runtimes need.

`dynamic` is for onnxruntime on the CPU: weights are int8, activations are quantized as they come.
TensorRT refuses its operators. `static` writes the QuantizeLinear and DequantizeLinear pairs that
TensorRT reads, symmetric, with ranges measured on training data: the middle 99.999 % of values. The
two products of attention, which have no weights, stay as they are there. Both were chosen by the
worst cosine on training pictures.

In both, weights are per channel, and convolutions are left alone (they get slower). Weights are
unsigned in `dynamic`: onnxruntime adds products of unsigned with signed bytes in 16 bits where a
CPU has no VNNI, so signed weights overflow there, and a file that passes the gate on one machine
gives other answers on another. Products of unsigned bytes are exact on every CPU.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from radapter.quiet import quiet

OPERATORS = ["MatMul", "Gemm"]


def dynamic(source: Path, target: Path, external_data: bool = False) -> None:
    """Quantize a tower for onnxruntime on the CPU."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # its advice fits other files
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            weight_type=QuantType.QUInt8,
            use_external_data_format=external_data,
        )


def static(
    source: Path, target: Path, batches: Sequence[np.ndarray], external_data: bool = False
) -> None:
    """Quantize a tower for TensorRT.

    Args:
        source: the tower in fp32.
        target: the file to write.
        batches: the tower's inputs, [n, ...], from training data.
        external_data: whether the weights go into a file beside.
    """
    graph = onnx.load(source, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    attention = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and not weights & set(node.input)
    ]
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # its advice fits other files
        quantize_static(
            source,
            target,
            _Batches(graph.input[0].name, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=external_data,
            calibrate_method=CalibrationMethod.Percentile,
            nodes_to_exclude=attention,
            # TensorRT refuses biases of int32.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        )


class _Batches(CalibrationDataReader):
    def __init__(self, name: str, batches: Sequence[np.ndarray]) -> None:
        self._batches = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)
