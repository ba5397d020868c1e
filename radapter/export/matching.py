"""Whether texts are of pictures as an ONNX file: `matching_model`, which re-ranks what the towers
find. It runs both towers and the decoder for each pair, so it needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from radapter import bundle, models
from radapter.export.cases import LONG, TEXTS, Cases, Inputs
from radapter.export.towers import export_pair_model
from radapter.models import half
from radapter.models.matching import (
    has_matching,
    last_tokens,
    match_logits,
    of_pictures,
    of_texts,
)


class MatchingModel(nn.Module):
    """pixel_values [batch, 3, height, width] and input_ids [batch, length] -> match_logits
    [batch, 2]; the second says that the text is of the picture."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        _, seen = of_pictures(self.model, pixel_values.to(half.image_dtype(self.model)))
        _, read = of_texts(self.model, input_ids)
        return match_logits(self.model, seen, read, last_tokens(self.model, input_ids))


def facts(loaded: models.LoadedModel) -> dict[str, Any]:
    """What the manifest says of it; nothing of a model without."""
    return {"matching": {"file": bundle.MATCHING}} if has_matching(loaded.model) else {}


def in_words(facts: Mapping[str, Any]) -> str:
    """What the model card says of it; nothing of a model without."""
    if "matching" not in facts:
        return ""
    return (
        f"`{bundle.MATCHING}` takes `pixel_values` and `input_ids`, a text for each picture, and "
        "gives `match_logits` [batch, 2]: of what the towers find, those whose second number is "
        "the largest fit the best. It runs both towers and the decoder for every pair, so it is "
        "for a few hundred of them, not for a collection.\n\n"
    )


def size(loaded: models.LoadedModel, towers: int) -> int:
    """Numbers in the file, of a model whose two towers have so many; 0 if it has none."""
    if not has_matching(loaded.model):
        return 0
    decoder: Any = loaded.model.text_decoder
    own = [p for name, p in decoder.named_parameters() if name != "text_projection"]
    return towers + sum(p.numel() for p in (*own, *loaded.model.matching.parameters()))  # type: ignore[union-attr]


def write(
    loaded: models.LoadedModel, folder: Path, inputs: Inputs, precisions: Sequence[str], opset: int
) -> list[tuple[str, str, Cases]]:
    """Write the file in fp32 and fp16, as far as the bundle has them.

    Returns:
        Of each file its name, its precision, and what it is verified on.
    """
    cases: Cases = {}
    for name, pixels in inputs.pixels().items():
        texts = [TEXTS[i % len(TEXTS)] for i in range(len(pixels))]
        for kind, own in {"": texts, ", full": [f"{text}, {LONG}" for text in texts]}.items():
            given = {"pixel_values": pixels, "input_ids": loaded.tokenize(own)}
            cases[f"{name}{kind}"] = given, inputs.reference.match(*given.values())
    return export_pair_model(
        loaded, MatchingModel, "match_logits", folder, bundle.MATCHING, cases, precisions, opset
    )
