"""From a plain model to what is deployed: ONNX files in a bundle, verified in a fresh process."""

from radapter.export.onnx import export_bundle, plan
from radapter.export.sample import Sample, training_sample

__all__ = ["Sample", "export_bundle", "plan", "training_sample"]
