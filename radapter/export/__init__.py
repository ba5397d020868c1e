"""From a plain model to what is deployed: ONNX files in a bundle, verified in a fresh process, and
TensorRT engines built from them (`radapter.export.tensorrt`, `radapter.export.engine`)."""

from radapter.export.gate import parity_gate
from radapter.export.onnx import export_bundle, plan
from radapter.export.sample import Sample, training_sample

__all__ = ["Sample", "export_bundle", "parity_gate", "plan", "training_sample"]
