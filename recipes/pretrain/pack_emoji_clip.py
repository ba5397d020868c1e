"""Make the built-in model from a finished run of recipes/pretrain/emoji-clip.yaml.

    python recipes/pretrain/pack_emoji_clip.py runs/pretrain-emoji-clip-...

Writes radapter/models/emoji_clip/open_clip_model.safetensors in fp16. Rows of the token table that
no training text uses are set to zero, which compresses to almost nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save

from radapter import merging, models
from radapter.data import open_data
from radapter.files import write_atomic
from radapter.models.loading import EMOJI_CLIP, WEIGHTS
from radapter.run import Run


def main() -> None:
    run = Run(Path(sys.argv[1]))
    recipe = run.recipe()
    state = merging.merge(run, 1.0)
    captions = open_data(recipe.data).captions
    texts = sorted({text for texts in captions for text in texts})
    tokenizer = models.load(recipe.model).tokenizer
    seen = tokenizer(texts, context_length=recipe.data.text_length).unique()
    table = torch.zeros_like(state["token_embedding.weight"])
    table[seen] = state["token_embedding.weight"][seen]
    state["token_embedding.weight"] = table
    half = {name: tensor.half().contiguous() for name, tensor in state.items()}
    if not all(torch.isfinite(tensor).all() for tensor in half.values()):
        raise ValueError("a weight does not fit into fp16")
    write_atomic(EMOJI_CLIP / WEIGHTS, save(half, metadata={"format": "pt"}))
    print(f"{len(seen)} of {len(table)} tokens kept; {models.load('emoji-clip').weights_hash}")


if __name__ == "__main__":
    main()
