"""From a plain model to what is deployed: ONNX files in a bundle, verified in a fresh process, and
TensorRT engines built from them (`radapter.export.tensorrt`, `radapter.export.engine`)."""

from radapter.export.facts import classes_of, golden_pictures, refresh, run_facts
from radapter.export.gate import parity_gate
from radapter.export.onnx import check, class_features, classes_hash, export_bundle, plan
from radapter.export.sample import Sample, training_sample
from radapter.export.triton import places, write_repository

__all__ = [
    "Sample",
    "check",
    "class_features",
    "classes_hash",
    "classes_of",
    "export_bundle",
    "golden_pictures",
    "parity_gate",
    "places",
    "plan",
    "refresh",
    "run_facts",
    "training_sample",
    "write_repository",
]
