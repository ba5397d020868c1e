"""Our zero-shot head against open_clip's own builder: the same head, and the ratio of times.

    python benchmarks/zero_shot_head.py [--model ViT-B-32:random] [--classes 25] [--rounds 2]

ImageNet's first class names with its 80 templates. Both take turns; the
shortest time of each counts.
"""

from __future__ import annotations

import time
from typing import Annotated

import open_clip
import torch
import typer

from radapter import models
from radapter.data.pairs import templates_of
from radapter.heads import zero_shot
from radapter.runtimes.opened import from_loaded


def main(
    model: str = "ViT-B-32:random",
    classes: Annotated[int, typer.Option(min=2, max=1000)] = 25,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print both times, their ratio and the largest difference of the heads; exit 1 above 1e-5."""
    loaded = models.load(model)
    opened = from_loaded(loaded)
    names = open_clip.IMAGENET_CLASSNAMES[:classes]
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES
    cases = {
        "open_clip": lambda: (
            open_clip.build_zero_shot_classifier(loaded.model, loaded.tokenizer, names, templates).T
        ),
        "radapter": lambda: zero_shot.weights(
            opened, zero_shot.prompts_of(names, templates_of("openai"))
        ),
    }
    best: dict[str, float] = {}
    heads: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        for case, build in cases.items():
            start = time.perf_counter()
            heads[case] = build()
            spent = time.perf_counter() - start
            best[case] = min(best.get(case, spent), spent)
    difference = float((heads["open_clip"] - heads["radapter"]).abs().max())
    print(f"{model}: {classes} classes x {len(templates)} templates, CPU\n")
    print("| | time |\n|---|---|")
    for case, spent in best.items():
        print(f"| {case} | {spent:.1f} s |")
    ratio = best["open_clip"] / best["radapter"]
    print(f"\n{ratio:.1f} times as fast; heads differ by at most {difference:.1e}")
    raise typer.Exit(int(difference > 1e-5))


if __name__ == "__main__":
    typer.run(main)
