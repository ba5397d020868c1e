"""From a plain model to what is deployed: ONNX files in a bundle, verified in a fresh process, and
TensorRT engines built from them (`radapter.export.trt.engines`, `radapter.export.trt.build`)."""

from radapter.export.bundling import Contents, export_bundle
from radapter.export.classes import class_features
from radapter.export.facts import classes_of, golden_pictures
from radapter.export.gate import parity_gate
from radapter.export.of_run import Exported, Plan, Wanted, export, plan, preview
from radapter.export.sample import Sample, training_sample

__all__ = [
    "Contents",
    "Exported",
    "Plan",
    "Sample",
    "Wanted",
    "class_features",
    "classes_of",
    "export",
    "export_bundle",
    "golden_pictures",
    "parity_gate",
    "plan",
    "preview",
    "training_sample",
]
