"""What augmentation and size give the built-in model, measured on a designer held out for it.

    python benchmarks/pretraining.py DRAWINGS [--epochs 1] [--variant upright ...]

Short pre-trainings of `recipes/pretrain/pictogram-clip.yaml`, one factor changed in each, scored on
the drawings of the designer whom the recipe holds out, from names to pictures: as training draws
them, and plain (in black on white, in full size, upright). DRAWINGS is the folder that
`icon_pretraining.py` writes. Each run leaves one file in `--out`; a finished one is not repeated.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
import typer
from safetensors.torch import save_file

from radapter import merging, training
from radapter import recipe as recipes
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.files import write_atomic
from radapter.models.loading import CONFIG, FOLDER, WEIGHTS
from radapter.runtimes.opened import from_loaded

OUT = Path("results") / "pretraining"
# "in full size" leaves no room for another place: sizes and places change together.
VARIANTS: dict[str, list[str]] = {
    "as the recipe says": [],
    "with another seed": ["seed=1"],
    "black on white": ["data.coloured=0"],
    "in full size": ["data.smallest=1"],
    "upright": ["data.turn=0"],
    "alone": ["data.several=0"],
}
SIZES = {f"{layers} x {width}": (layers, width) for layers, width in ((4, 192), (6, 192))}
"""Layers and width of the picture tower; the recipe's is 8 x 256"""
DROPPED = 0.5
PLAIN = {"coloured": 0.0, "smallest": 1.0, "turn": 0.0}
METRICS = ("text_to_image_r1", "text_to_image_r10")
COLUMNS = [(form, metric) for form in ("drawn", "plain") for metric in METRICS]


def start(folder: Path, size: tuple[int, int] | None) -> None:
    """Random weights, of the built-in model's form or another size."""
    config = json.loads((FOLDER / CONFIG).read_text())
    vision = config["model_cfg"]["vision_cfg"]
    vision["patch_dropout"] = DROPPED
    if size:
        vision["layers"], vision["width"] = size
    (folder / CONFIG).write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    save_file(model.state_dict(), folder / WEIGHTS)


def score(variant: str, drawings: Path, epochs: int) -> dict[str, Any]:
    """Train one variant and score it on the held-out designer."""
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder), SIZES.get(variant))
        overrides = [f"model={folder}", f"data.path={drawings.resolve()}"]
        overrides += [f"optimisation.epochs={epochs}", "monitor.every_steps=100000"]
        place = recipes.locate("pretrain/pictogram-clip")
        held_out = recipes.load(place, overrides).data.held_out()
        recipe = recipes.load(place, overrides + VARIANTS.get(variant, []))
        forms = {"drawn": held_out, "plain": held_out.model_copy(update=PLAIN)}
        sets = [SuiteDataset(name=name, role="unseen", data=of) for name, of in forms.items()]
        suite = Suite(name="held-out", tasks=["retrieval"], datasets=sets)
        run = training.train(recipe, Path(folder) / "runs")
        trained = merging.open_trained(run)
        last = run.logged("loss")[-1]
        trained.base.model.load_state_dict(trained.at(1.0))
        result = evaluate(suite, from_loaded(trained.base)).result()["datasets"]
        parameters = sum(p.numel() for p in trained.base.model.visual.parameters())
    took = {"steps": last["steps"], "seconds": last["seconds"], "parameters": parameters}
    return {"variant": variant} | took | result


def main(
    drawings: Annotated[Path, typer.Argument(help="What icon_pretraining.py wrote.")],
    epochs: Annotated[int, typer.Option(help="Passes over the drawings.")] = 1,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="One of them; may be given several times. Default: all."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = OUT,
) -> None:
    """Run the variants that have no result yet, then print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {epochs} epochs")
    head = ["", "picture tower, M", *map(", ".join, COLUMNS), "s a step"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    if unknown := set(variant or []) - {*VARIANTS, *SIZES}:
        raise typer.BadParameter(f"no variant {', '.join(sorted(unknown))}: {[*VARIANTS, *SIZES]}")
    for name in variant or [*VARIANTS, *SIZES]:
        path = out / f"{name.replace(' ', '_')}-{epochs}.json"
        if not path.is_file():
            found = score(name, drawings, epochs)
            write_atomic(path, json.dumps(found, default=list, indent=1) + "\n")
        result = json.loads(path.read_text())
        cells = [f"{result['parameters'] / 1e6:.1f}"]
        for form, metric in COLUMNS:
            (low, high), value = (result[form][metric][key] for key in ("interval", "value"))
            cells.append(f"{100 * value:.1f} ±{50 * (high - low):.1f}")
        pace = result["seconds"] / result["steps"]
        print(f"| {name} | " + " | ".join(cells) + f" | {pace:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
