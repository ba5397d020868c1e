"""The files of weights around the pre-training of the built-in model.

    python recipes/pretrain/pictogram_clip.py start OUT [--patch-dropout 0.5]
    python recipes/pretrain/pictogram_clip.py go-on MODEL OUT [--patch-dropout 0.5]
    python recipes/pretrain/pictogram_clip.py pack RUN OUT

OUT becomes a folder in open_clip's format. `start` has random weights, `go-on` those of a model,
or the averaged ones that a run ended with. `pack` makes the model that ships: fp16, and of the
token table the rows of tokens that some training text has. Dropping patches is for training alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save
from torch import Tensor

from radapter import merging, models
from radapter.data import open_data
from radapter.files import write_atomic
from radapter.models import compact
from radapter.models.loading import BUILT_IN, CONFIG, WEIGHTS
from radapter.run import Run

MOST = 24e6
"""Bytes that the base may take"""
SEED = 0
app = typer.Typer(add_completion=False)
Share = Annotated[float, typer.Option(min=0.0, max=0.9)]


@app.command()
def start(out: Path, patch_dropout: Share = 0.0) -> None:
    """Random weights."""
    _write(out, models.load(f"{BUILT_IN}:random", seed=SEED).model.state_dict(), patch_dropout)


@app.command()
def go_on(model: str, out: Path, patch_dropout: Share = 0.0) -> None:
    """The weights of a model, or the averaged ones that a run ended with."""
    run = Run(Path(model))
    state = (
        merging.merge(run, 1.0) if run.adapter.is_file() else models.load(model).model.state_dict()
    )
    _write(out, state, patch_dropout)


@app.command()
def pack(run: Path, out: Path) -> None:
    """The model that ships."""
    of_run = Run(run)
    seen = tokens_of(of_run)
    state = compact.compacted(merging.merge(of_run, 1.0), seen)
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    if not all(torch.isfinite(value).all() for value in half.values()):
        raise ValueError("a weight does not fit into fp16")
    size = _write(out, half)
    if size > MOST:
        raise ValueError(f"{size / 1e6:.1f} MB, and the base may take {MOST / 1e6:.0f}")
    print(f"{len(seen):,} tokens kept, {size / 1e6:.1f} MB; {models.load(out).weights_hash}")


def tokens_of(run: Run) -> Tensor:
    """Ids of all tokens that training texts can have."""
    recipe = run.recipe()
    tokenizer = models.load(recipe.model).tokenizer
    texts = {"one, two and three"}  # how names are joined
    for of_picture in open_data(recipe.data).captions:
        for text in of_picture:
            texts |= {text, *text.split(", ")}
    length = recipe.data.text_length
    return tokenizer(sorted(texts), context_length=length).unique()


def _write(out: Path, state: Mapping[str, Tensor], patch_dropout: float = 0.0) -> int:
    """Size of the weights in bytes."""
    config: dict[str, Any] = json.loads((models.loading.FOLDER / CONFIG).read_text())
    if patch_dropout:
        config["model_cfg"]["vision_cfg"]["patch_dropout"] = patch_dropout
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / CONFIG, json.dumps(config, indent=2) + "\n")
    content = save({k: v.contiguous() for k, v in state.items()}, metadata={"format": "pt"})
    write_atomic(out / WEIGHTS, content)
    return len(content)


if __name__ == "__main__":
    app()
