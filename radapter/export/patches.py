"""The features of patches as an ONNX file: the tower `patch_model`."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from radapter import bundle, models
from radapter.errors import UsageError
from radapter.export.cases import Cases, Inputs
from radapter.export.towers import BATCH, copy_in, save
from radapter.models import half
from radapter.models.patches import has_patches, patch_features

PRECISIONS = ("fp32", "fp16")


class PatchTower(nn.Module):
    """pixel_values [batch, 3, height, width] -> patch_embeds [batch, rows, columns, dim], unit
    norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        pixel_values = pixel_values.to(half.image_dtype(self.model))
        return F.normalize(patch_features(self.model, pixel_values).float(), dim=-1)


def check(loaded: models.LoadedModel) -> None:
    """Raise UsageError for a model without patch features that are known."""
    if not has_patches(loaded.model):
        raise UsageError(
            f"--patches needs a ViT of open_clip's own code, for pictures, which {loaded.name} is "
            "not: leave it out."
        )


def write(
    loaded: models.LoadedModel, folder: Path, inputs: Inputs, precisions: list[str], opset: int
) -> list[tuple[str, str, Cases]]:
    """Write the file in fp32 and fp16, as far as the bundle has them.

    Returns:
        Of each file its name, its precision, and what it is verified on.
    """
    cases = {name: (x, inputs.reference.encode_patches(x)) for name, x in inputs.pixels().items()}
    example = {"pixel_values": next(iter(cases.values()))[0][:3]}
    written = []
    for precision in [p for p in precisions if p in PRECISIONS]:
        graph = PatchTower(copy_in(loaded.model, precision))
        file = bundle.in_precision(bundle.PATCHES, precision)
        shapes = {"pixel_values": {0: BATCH}}
        save(graph, folder / file, example, "patch_embeds", shapes, opset=opset)
        written.append((file, precision, cases))
    return written
