"""Graphs put before and after the image tower: pictures in as bytes, probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, compose, parser
from torch import Tensor, nn

from radapter.errors import UsageError
from radapter.export.towers import BATCH, onnx_of

INTERPOLATION = {"bicubic": "cubic", "bilinear": "linear"}

# Shortest side to the size, then the centre, with the rounding of torchvision: sizes are cut to
# whole pixels, margins rounded to the even one. Resizing bytes, onnxruntime rounds between the two
# passes as Pillow does. Sizes are given for all axes: with the attribute `axes`, onnxruntime's
# optimizer of transpositions makes invalid graphs.
PICTURES = """
<ir_version: {ir_version}, opset_import: ["": {opset}]>
pictures (uint8[batch, height, width, 3] pixels)
  => (float[batch, 3, {rows}, {columns}] pixel_values)
<int64[2] crop = {{{rows}, {columns}}}, int64[2] axes = {{2, 3}},
 float[1] two = {{2.0}}, float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] std = {{{std}}}>
{{
  planes = Transpose <perm = [0, 3, 1, 2]> (pixels)
  {shortest}
  pictures_and_colours = Shape <start = 0, end = 2> (planes)
  all_sizes = Concat <axis = 0> (pictures_and_colours, {sizes})
  resized = Resize <mode = "{interpolation}", antialias = 1, cubic_coeff_a = -0.5>
    (planes, , , all_sizes)
  margins = Sub ({sizes}, crop)
  margins_float = Cast <to = {float32}> (margins)
  halves = Div (margins_float, two)
  rounded = Round (halves)
  start = Cast <to = {int64}> (rounded)
  end = Add (start, crop)
  centre = Slice (resized, start, end, axes)
  bytes = Cast <to = {float32}> (centre)
  centred = Sub (bytes, mean)
  pixel_values = Div (centred, std)
}}
"""
SHORTEST = """sides = Shape <start = 2, end = 4> (planes)
  shortest = ReduceMin <keepdims = 1> (sides)
  grown = Mul (sides, crop)
  sizes = Div (grown, shortest)"""


class Probabilities(nn.Module):
    """image_embeds [batch, dim], unit norm -> probabilities [batch, classes]."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, image_embeds: Tensor) -> Tensor:
        logits: Tensor = self.head(image_embeds)
        return logits.softmax(dim=1)


def classifier(tower: Path, target: Path, head: nn.Module, dim: int) -> None:
    """Write the image tower with a head behind it: probabilities [batch, classes], fp32.

    Args:
        tower: an image tower.
        target: the file to write.
        head: from its features [batch, dim] to logits.
        dim: of the features.
    """
    model = onnx.load(tower)
    behind = onnx_of(
        Probabilities(head),
        {"image_embeds": torch.zeros(3, dim)},
        "probabilities",
        {"image_embeds": {0: BATCH}},
        opset=_form(model)["opset"],
    ).model_proto
    behind = compose.add_prefix(behind, "head/", rename_inputs=False, rename_outputs=False)
    behind.ir_version = model.ir_version
    _save(compose.merge_models(model, behind, [("image_embeds", "image_embeds")]), model, target)


def from_bytes(tower: Path, target: Path, preprocessing: Mapping[str, Any]) -> None:
    """Write a file that takes pixels [batch, height, width, 3], uint8, and does the rest itself.

    Args:
        tower: an image tower, or a classifier made of one.
        target: the file to write.
        preprocessing: `size`, `mean`, `std`, `interpolation`, `resize_mode`, as open_clip has them.

    Raises:
        UsageError: the model's preprocessing has no such graph.
    """
    rows, columns, mode = check_preprocessing(preprocessing)
    model = onnx.load(tower)
    first = parser.parse_model(
        PICTURES.format(
            **_form(model),
            rows=rows,
            columns=columns,
            mean=", ".join(str(255 * float(value)) for value in preprocessing["mean"]),
            std=", ".join(str(255 * float(value)) for value in preprocessing["std"]),
            interpolation=INTERPOLATION[preprocessing.get("interpolation") or "bicubic"],
            shortest="" if mode == "squash" else SHORTEST,
            sizes="crop" if mode == "squash" else "sizes",
            float32=TensorProto.FLOAT,
            int64=TensorProto.INT64,
        )
    )
    prefixed = compose.add_prefix(first, "pictures/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(prefixed, model, [("pixel_values", "pixel_values")])
    _save(merged, model, target)


def check_preprocessing(preprocessing: Mapping[str, Any]) -> tuple[int, int, str]:
    """Rows and columns of the pictures that a model takes, and how they are made so.

    Raises:
        UsageError: there is no graph for it.
    """
    size = preprocessing["size"]
    rows, columns = (size, size) if isinstance(size, int) else size
    mode = preprocessing.get("resize_mode") or "shortest"
    if mode == "longest" or (mode == "shortest" and rows != columns):
        raise UsageError(
            f"--input uint8 cannot do this model's preprocessing (resize_mode {mode}, "
            f"{rows} x {columns}): leave it out and prepare pictures as preprocessor_config.json "
            "says."
        )
    return rows, columns, mode


def _form(model: onnx.ModelProto) -> dict[str, int]:
    opset = next(item.version for item in model.opset_import if item.domain == "")
    return {"ir_version": model.ir_version, "opset": opset}


def _save(merged: onnx.ModelProto, model: onnx.ModelProto, target: Path) -> None:
    merged.producer_name, merged.producer_version = model.producer_name, model.producer_version
    merged.doc_string = merged.graph.doc_string = ""
    del merged.opset_import[:]  # of both, otherwise
    merged.opset_import.extend(model.opset_import)
    onnx.save(merged, target)
