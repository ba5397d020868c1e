"""The towers as ONNX files, in fp32 or fp16."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from radapter import bundle, models
from radapter.export.cases import Cases
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


def copy_in(model: nn.Module, precision: str) -> nn.Module:
    """A copy of a model in a precision, `fp32` or `fp16`, on the CPU: the exporter and its tracing
    must not leave a mark on the caller's."""
    copied = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    return half.to_half(copied) if precision == "fp16" else copied


def save(
    graph: nn.Module,
    path: Path,
    example: Mapping[str, Tensor],
    output: str,
    axes: dict[str, Any],
    *,
    opset: int,
) -> None:
    """Write what `onnx_of` makes of a graph; weights that are too many for one file go beside it.

    Args:
        path: of the ONNX file.
    """
    program = onnx_of(graph.eval(), example, output, axes, opset=opset)
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    program.save(str(path), external_data=size > ONE_FILE)


def export_pair_model(
    loaded: models.LoadedModel,
    graph: Callable[[nn.Module], nn.Module],
    output: str,
    folder: Path,
    file: str,
    cases: Cases,
    precisions: Sequence[str],
    opset: int,
) -> list[tuple[str, str, Cases]]:
    """Write a file of pixel_values and input_ids, a text for each picture, in fp32 and fp16, as far
    as the bundle has these.

    Args:
        graph: of the model, and the name of what it gives, `output`.
        file: its name in fp32.
        cases: what it is verified on.

    Returns:
        Of each file its name, its precision, and the cases.
    """
    example = {name: own[:3] for name, own in next(iter(cases.values()))[0].items()}
    short = models.takes_short_texts(loaded.model)
    lengths = {1: Dim("length", min=2, max=loaded.context_length)} if short else {}
    shapes = {"pixel_values": {0: BATCH}, "input_ids": {0: BATCH} | lengths}
    written = []
    for precision in [p for p in precisions if p in ("fp32", "fp16")]:
        name = bundle.in_precision(file, precision)
        of = graph(copy_in(loaded.model, precision))
        save(of, folder / name, example, output, shapes, opset=opset)
        written.append((name, precision, cases))
    return written


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
    model = copy_in(model, precision)
    short = models.takes_short_texts(model)
    lengths = {"length": Dim("length", min=2, max=context_length)} if short else {}
    for tower in bundle.towers(most_frames(model)):
        axes = {0: BATCH} | {i: lengths[a] for i, a in enumerate(tower.axes, 1) if a in lengths}
        example, shapes = {tower.input: examples[tower.input]}, {tower.input: axes}
        path = folder / bundle.in_precision(tower.file, precision)
        save(GRAPHS[tower.name](model), path, example, tower.output, shapes, opset=opset)
