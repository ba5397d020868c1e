"""The towers as ONNX files, in fp32 or fp16."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from radapter import bundle, models
from radapter.models import half
from radapter.models.frames import most_frames
from radapter.quiet import quiet

BATCH = Dim("batch", min=1, max=2**16)
ONE_FILE = 1.9e9  # bytes of weights; a protobuf file ends at 2 GB


class ImageTower(nn.Module):
    """pixel_values [batch, 3, height, width], fp32 -> image_embeds [batch, dim], unit norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        pixel_values = pixel_values.to(half.image_dtype(self.model))
        features = self.model.encode_image(pixel_values)  # type: ignore[operator]
        return F.normalize(features.float(), dim=-1)


class VideoTower(nn.Module):
    """pixel_values_videos [batch, frames, 3, height, width], fp32, NaN in frames that are none ->
    video_embeds [batch, dim], unit norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values_videos: Tensor) -> Tensor:
        clips = pixel_values_videos.to(half.image_dtype(self.model))
        features: Tensor = self.model.encode_video(clips)  # type: ignore[operator]
        return features


class TextTower(nn.Module):
    """input_ids [batch, length] -> text_embeds [batch, dim], unit norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.normalize(models.encode_text(self.model, input_ids).float(), dim=-1)


GRAPHS = {"vision_model": ImageTower, "text_model": TextTower, "video_model": VideoTower}


def of_clips(facts: Mapping[str, Any]) -> str:
    """What the model card says of the file for clips; nothing of a model of pictures."""
    if "frames" not in facts:
        return ""
    return (
        f"`{bundle.VIDEO}` takes `pixel_values_videos` [batch, {facts['frames']}, 3, height, "
        "width], the frames of a clip in their order, each prepared as a picture, and gives "
        "`video_embeds` [batch, dim] of unit norm. Of a shorter clip the last frames are NaN. "
        "The mean of `image_embeds` is something else: this file looks at the order.\n\n"
    )


def onnx_of(
    graph: nn.Module,
    example: Mapping[str, Tensor],
    output: str,
    axes: dict[str, Any],
    *,
    opset: int,
) -> Any:
    """A module as torch's ONNXProgram; the same one gives the same bytes.

    Args:
        graph: of one input and one output, in evaluation mode.
        example: the input by its name, [3, ...]; a batch of one would be taken for a constant.
        output: its name.
        axes: of the input those that are of any size.
        opset: of ONNX.
    """
    # The exporter warns and logs about its own workings; what matters is verified.
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            tuple(example.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=axes,
            verbose=False,
        )
    assert program is not None
    # Stack traces with this machine's paths, otherwise.
    ClearMetadataAndDocStringPass()(program.model)
    program.model.producer_version = torch.__version__.split("+")[0]  # not how torch was built
    return program


def export_towers(
    model: nn.Module,
    folder: Path,
    examples: Mapping[str, Tensor],
    *,
    precision: str,
    context_length: int,
    opset: int,
) -> None:
    """Write the towers of a copy of the model under the names that the bundle has for them.

    Args:
        model: left as it is.
        folder: of the bundle.
        examples: by the input's name, [3, ...]; a batch of one would be taken for a constant.
        precision: `fp32` or `fp16`.
        context_length: tokens of the longest text.
        opset: of ONNX.
    """
    # The exporter and its tracing must not leave a mark on the caller's model.
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if precision == "fp16":
        half.to_half(model)
    short = models.takes_short_texts(model)
    lengths = {"length": Dim("length", min=2, max=context_length)} if short else {}
    for tower in bundle.towers(most_frames(model)):
        graph = GRAPHS[tower.name](model).eval()
        axes = {0: BATCH} | {i: lengths[a] for i, a in enumerate(tower.axes, 1) if a in lengths}
        example, shapes = {tower.input: examples[tower.input]}, {tower.input: axes}
        program = onnx_of(graph, example, tower.output, shapes, opset=opset)
        size = sum(p.numel() * p.element_size() for p in graph.parameters())
        path = folder / bundle.in_precision(tower.file, precision)
        program.save(str(path), external_data=size > ONE_FILE)
