"""Queries of a picture and a text as an ONNX file: the tower `query_model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from radapter import bundle, models
from radapter.export.cases import LONG, TEXTS, Cases, Inputs
from radapter.export.towers import export_pair_model
from radapter.models import half
from radapter.models.queries import PLACE, asked, has_queries, query_features


class QueryTower(nn.Module):
    """pixel_values [batch, 3, height, width] and input_ids [batch, length] -> query_embeds [batch,
    dim], unit norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        pixel_values = pixel_values.to(half.image_dtype(self.model))
        z = self.model.encode_image(pixel_values)  # type: ignore[operator]
        return F.normalize(query_features(self.model, z, input_ids).float(), dim=-1)


def facts(loaded: models.LoadedModel) -> dict[str, Any]:
    """What the manifest says of it; nothing of a model without."""
    if not has_queries(loaded.model):
        return {}
    inversion: Any = loaded.model.inversion
    return {"query": {"template": inversion.template, "place": PLACE, "token": inversion.place}}


def size(loaded: models.LoadedModel, towers: int) -> int:
    """Numbers in the file, of a model whose two towers have so many; 0 if it has none."""
    if not has_queries(loaded.model):
        return 0
    network: Any = loaded.model.inversion
    return towers + sum(p.numel() for p in network.parameters())


def write(
    loaded: models.LoadedModel, folder: Path, inputs: Inputs, precisions: Sequence[str], opset: int
) -> list[tuple[str, str, Cases]]:
    """Write the file in fp32 and fp16, as far as the bundle has them.

    Returns:
        Of each file its name, its precision, and what it is verified on.
    """
    cases = _cases(loaded, inputs)
    return export_pair_model(
        loaded, QueryTower, "query_embeds", folder, bundle.QUERY, cases, precisions, opset
    )


def in_words(facts: Mapping[str, Any]) -> str:
    """What the model card says of it; nothing of a model without."""
    if "query" not in facts:
        return ""
    return (
        f"`{bundle.QUERY}` takes `pixel_values` and `input_ids` of a text in the template "
        f"`{facts['query']['template']}`, with `{facts['query']['place']}` (token "
        f"{facts['query']['token']}) for the picture, and gives `query_embeds` [batch, dim], "
        "unit norm, of the picture that is looked for: compare them with `image_embeds`.\n\n"
    )


def _cases(loaded: models.LoadedModel, inputs: Inputs) -> Cases:
    """Every kind of pictures with short texts, and the first with full ones."""
    template = facts(loaded)["query"]["template"]
    cases: Cases = {}
    for name, pixels in inputs.pixels().items():
        texts = [asked(template, TEXTS[i % len(TEXTS)]) for i in range(len(pixels))]
        for kind, own in {"": texts, ", full": [f"{text}, {LONG}" for text in texts]}.items():
            ids = loaded.tokenize(own)
            given = {"pixel_values": pixels, "input_ids": ids}
            cases[f"{name}{kind}"] = given, inputs.reference.encode_query(pixels, ids)
    return cases
