"""What differences the test pictures of the built-in icons can show, and what raw pixels do there.

    radapter train icons-base-to-novel 'method={name: full}' optimisation.lr=3e-4 seed=1   # and 2
    python benchmarks/icon_power.py [--tuned RUN --tuned RUN]
    python benchmarks/icon_power.py --write

For each kind: zero-shot accuracy, that of two tuned models, such as two seeds of a method of
the study `icons`, and half-widths of 95 % intervals, of each accuracy and of the tuned models'
paired difference, when pictures are resampled within classes and when classes are. Beside them the
nearest of all training pictures, by features and by raw 16 x 16 grey pixels: pixels have to lose
clearly, since colours, size and place are drawn at random.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn.functional import normalize
from torchvision.transforms.functional import to_tensor

from radapter.data import Dataset, icons, open_data
from radapter.data.sources.icons import IconsData
from radapter.evaluation.trivial import RawPixels
from radapter.files import write_atomic
from radapter.merging import open_trained
from radapter.models import LoadedModel, load

RESAMPLINGS = 2000
KINDS = ("line", "solid", "two-tone", "colour", "pixel")
SETS = ("all", "base", "novel")
"""Classes of test sets"""


def opened(kind: str, split: str, **values: object) -> Dataset:
    return open_data(IconsData(source="icons", kinds=[kind], split=split, **values))


@torch.no_grad()
def features(model: LoadedModel, dataset: Dataset) -> torch.Tensor:
    """[pictures, dim], of length 1."""
    found = []
    for start in range(0, len(dataset), 256):
        pictures = [dataset.read(i) for i in range(start, min(start + 256, len(dataset)))]
        batch = torch.stack([model.preprocess(picture) for picture in pictures])
        found.append(model.model.encode_image(batch))
    return normalize(torch.cat(found), dim=-1)


def pixels_of(dataset: Dataset) -> torch.Tensor:
    """As in tables: [pictures, 256], of length 1."""
    pixels = RawPixels([0.0] * 3, [1.0] * 3)
    found = [pixels.encode_image(to_tensor(dataset.read(i))[None]) for i in range(len(dataset))]
    return torch.cat(found)


def half_widths(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Of the mean of values of pictures, in points: pictures within classes; classes."""
    chance = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    within = [
        np.concatenate([values[chance.choice(of, len(of))] for of in classes]).mean()
        for _ in range(RESAMPLINGS)
    ]
    sums = np.array([values[of].sum() for of in classes])
    sizes = np.array([len(of) for of in classes])
    drawn = chance.integers(len(classes), size=(RESAMPLINGS, len(classes)))
    over = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return tuple(50 * np.ptp(np.percentile(v, [2.5, 97.5])) for v in (np.array(within), over))


def raw_pixels() -> dict[str, float]:
    """The accuracy of the nearest training picture in lines of the same classes, by raw pixels, of
    every test set of the suites: what `radapter/data/icons/raw_pixels.json` has."""
    found = {}
    for classes in SETS:
        train = opened("line", "train", classes=classes)
        trained, labels = pixels_of(train), torch.tensor(train.labels)
        for kind in KINDS:
            test = opened(kind, "test", classes=classes)
            guess = nearest(pixels_of(test), trained, labels)
            right = (guess == torch.tensor(test.labels)).double().mean()
            found[icons.measured([kind], classes)] = round(float(right), 6)
    return found


def nearest(rows: torch.Tensor, others: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels[(rows @ others.T).argmax(1)]


def texts_of(model: LoadedModel, names: list[str]) -> torch.Tensor:
    """[classes, dim], of length 1."""
    with torch.no_grad():
        return normalize(model.model.encode_text(model.tokenizer(names)), dim=-1)


def main(
    model: Annotated[str, typer.Option(help="The zero-shot model.")] = "pictogram-clip",
    tuned: Annotated[
        list[Path] | None, typer.Option(help="A run; two of them are compared.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Only measure raw pixels, for the tables.")
    ] = False,
) -> None:
    """Print the table, or write what raw pixels have right."""
    if write:
        write_atomic(icons.HERE / "raw_pixels.json", json.dumps(raw_pixels(), indent=1) + "\n")
        return
    models = {"zero-shot": load(model)}
    for number, run in enumerate(tuned or [], 1):
        trained = open_trained(run)
        trained.base.model.load_state_dict(trained.at(1.0))
        models[f"tuned, run {number}"] = trained.base
    for loaded in models.values():
        loaded.model.eval()
    train = opened("line", "train")
    known = features(models["zero-shot"], train), pixels_of(train)
    labels = torch.tensor(train.labels)
    print("| | pictures | accuracy | ± within classes | ± over classes |\n|---|---|---|---|---|")
    for kind in KINDS:
        test = opened(kind, "test")
        found = {name: features(loaded, test) for name, loaded in models.items()}
        right = {
            name: (own @ texts_of(models[name], test.class_names).T).argmax(1)
            for name, own in found.items()
        }
        right["nearest training picture, features"] = nearest(found["zero-shot"], known[0], labels)
        right["nearest training picture, raw pixels"] = nearest(pixels_of(test), known[1], labels)
        truth = np.array(test.labels)
        rows = {name: (guess.numpy() == truth).astype(float) for name, guess in right.items()}
        if len(models) == 3:
            rows["difference of the tuned"] = rows["tuned, run 1"] - rows["tuned, run 2"]
        for name, values in rows.items():
            within, over = half_widths(values, truth)
            print(
                f"| {kind}: {name} | {len(test):,} | {100 * values.mean():.1f} | {within:.2f} | "
                f"{over:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
