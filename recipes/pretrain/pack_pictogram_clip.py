"""Make the built-in model from a finished pre-training run.

    python recipes/pretrain/pack_pictogram_clip.py RUN OUT

Writes OUT/open_clip_config.json and OUT/open_clip_model.safetensors: fp16, and of the token table
the rows of tokens that some training text has. Dropping patches is for training alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save

from radapter import merging, models
from radapter.data import open_data
from radapter.files import write_atomic
from radapter.models import compact
from radapter.models.loading import CONFIG, WEIGHTS
from radapter.run import Run

MOST = 24e6
"""Bytes that the base may take"""


def tokens_of(run: Run) -> torch.Tensor:
    """Ids of all tokens that training texts can have."""
    recipe = run.recipe()
    tokenizer = models.load(recipe.model).tokenizer
    texts = {"one, two and three"}  # how names are joined
    for of_picture in open_data(recipe.data).captions:
        for text in of_picture:
            texts |= {text, *text.split(", ")}
    length = recipe.data.text_length
    return tokenizer(sorted(texts), context_length=length).unique()


def main() -> None:
    run, out = Run(Path(sys.argv[1])), Path(sys.argv[2])
    config = models.load(run.recipe().model).config
    config["model_cfg"]["vision_cfg"].pop("patch_dropout", None)
    seen = tokens_of(run)
    state = compact.compacted(merging.merge(run, 1.0), seen)
    half = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }
    if not all(torch.isfinite(tensor).all() for tensor in half.values()):
        raise ValueError("a weight does not fit into fp16")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / CONFIG, json.dumps(config, indent=2, default=list) + "\n")
    content = save(half, metadata={"format": "pt"})
    if len(content) > MOST:
        raise ValueError(f"{len(content) / 1e6:.1f} MB, and the base may take {MOST / 1e6:.0f}")
    write_atomic(out / WEIGHTS, content)
    print(f"{len(seen)} tokens kept, {len(content) / 1e6:.1f} MB; {models.load(out).weights_hash}")


if __name__ == "__main__":
    main()
