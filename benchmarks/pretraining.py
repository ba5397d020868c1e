"""What augmentation and captions give the built-in model, measured on a style held out for it.

    python benchmarks/pretraining.py [--epochs 8] [--variant "no augmentation" ...]

Short pre-trainings of `recipes/pretrain/emoji-clip.yaml` without twemoji, one factor changed in
each, scored on twemoji: all concepts, both tasks. Neither noto nor a style that the suite calls
unseen is looked at. Each run leaves one file in `--out`; a finished one is not repeated.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from radapter import merging, training
from radapter import recipe as recipes
from radapter.data.sources.emoji import EmojiData
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.scores import headlines
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.files import write_atomic
from radapter.runtimes.opened import from_loaded

OUT = Path(__file__).parent / "results" / "pretraining"
STYLES = "data.styles=[fluent-emoji, fluent-emoji-flat, fluent-emoji-high-contrast, noto-v1]"
HELD_OUT = "twemoji"
VARIANTS: dict[str, list[str]] = {
    "as the recipe says": [],
    "no augmentation": ["data.augmentation={crop: [1.0, 1.0]}"],
    "crop and rotation alone": ["data.augmentation={crop: [0.6, 1.0], rotate: 15}"],
    "no class prompts": ["data.captions=[name, keywords, kind]"],
    "texts of full length": ["data.text_length=null"],
}


def score(variant: str, epochs: int) -> dict[str, Any]:
    """Train one variant and score it on the held-out style."""
    overrides = [STYLES, f"optimisation.epochs={epochs}", *VARIANTS[variant]]
    recipe = recipes.load(recipes.locate("pretrain/emoji-clip"), overrides)
    suite = Suite(
        name=HELD_OUT,
        templates=["a picture of {}."],
        tasks=["classification", "retrieval"],
        datasets=[
            SuiteDataset(
                name=HELD_OUT,
                role="unseen",
                data=EmojiData(source="emoji", styles=[HELD_OUT], split="all"),
            )
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        run = training.train(recipe, Path(folder))
        trained = merging.open_trained(run)
        last = json.loads(run.metrics.read_text().splitlines()[-1])
        trained.base.model.load_state_dict(trained.at(1.0))
    result = evaluate(suite, from_loaded(trained.base)).result()["datasets"][HELD_OUT]
    return {"variant": variant, "steps": last["steps"], "seconds": last["seconds"]} | result


def main(
    epochs: Annotated[int, typer.Option(help="Passes over the captions.")] = 8,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="One of them; may be given several times. Default: all."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = OUT,
) -> None:
    """Run the variants that have no result yet, then print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {epochs} epochs")
    metrics = tuple(headlines())
    print("| | " + " | ".join(metrics) + " | s a step |\n|---|---|---|---|---|")
    for name in variant or VARIANTS:
        path = out / f"{name.replace(' ', '_')}-{epochs}.json"
        if not path.is_file():
            write_atomic(path, json.dumps(score(name, epochs), default=list, indent=1) + "\n")
        result = json.loads(path.read_text())
        cells = []
        for metric in metrics:
            (low, high), value = result[metric]["interval"], result[metric]["value"]
            cells.append(f"{100 * value:.1f} ±{50 * (high - low):.1f}")
        pace = result["seconds"] / result["steps"]
        print(f"| {name} | " + " | ".join(cells) + f" | {pace:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
