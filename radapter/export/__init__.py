"""From a plain model to what is deployed: ONNX files in a bundle, verified in a fresh process, and
TensorRT engines built from them (`radapter.export.tensorrt`, `radapter.export.engine`)."""

from radapter.export.onnx import export_bundle, plan

__all__ = ["export_bundle", "plan"]
