"""What differences the test pictures of the built-in icons can show, and what raw pixels do there.

    python benchmarks/icon_power.py [--model pictogram-clip]
    python benchmarks/icon_power.py --write

For line and solid: zero-shot accuracy, and accuracy by the nearest mean of the features of 8 shots;
half-widths of 95 % intervals, of the accuracy and of the paired difference of two such classifiers
(draws 1 and 2, as an example of two tuned models), when pictures are resampled within classes and
when classes are. Beside them the nearest of all training pictures, by features and by raw 16 x 16
grey pixels: pixels have to lose clearly, since colours, size and place are drawn at random.
"""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn.functional import normalize

from radapter.data import Dataset, icons, open_data
from radapter.data.sources.icons import IconsData
from radapter.files import write_atomic
from radapter.models import LoadedModel, load

RESAMPLINGS = 2000
KINDS = ("line", "solid")
EACH = [(kind,) for kind in ("line", "solid", "two-tone", "colour", "pixel")]
SETS = {"all": EACH, "base": EACH, "novel": EACH, "unseen": [("line", "solid")]}
"""By classes, the kinds of test sets"""


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
    """Grey pictures of 16 x 16, less their mean, [pictures, 256], of length 1."""
    grey = [
        np.asarray(dataset.read(i).convert("L").resize((16, 16)), np.float32)
        for i in range(len(dataset))
    ]
    rows = torch.from_numpy(np.stack(grey)).flatten(1)
    return normalize(rows - rows.mean(1, keepdim=True), dim=-1)


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
    for classes, sets in SETS.items():
        train = opened("line", "train", classes=classes)
        if not len(train):
            continue
        trained, labels = pixels_of(train), torch.tensor(train.labels)
        for kinds in sets:
            test = open_data(
                IconsData(source="icons", kinds=list(kinds), split="test", classes=classes)
            )
            guess = nearest(pixels_of(test), trained, labels)
            right = (guess == torch.tensor(test.labels)).double().mean()
            found[icons.measured(kinds, classes)] = round(float(right), 6)
    return found


def nearest(rows: torch.Tensor, others: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels[(rows @ others.T).argmax(1)]


def main(
    model: Annotated[str, typer.Option(help="A model.")] = "pictogram-clip",
    write: Annotated[
        bool, typer.Option("--write", help="Only measure raw pixels, for the tables.")
    ] = False,
) -> None:
    """Print the table, or write what raw pixels have right."""
    if write:
        write_atomic(icons.HERE / "raw_pixels.json", json.dumps(raw_pixels(), indent=1) + "\n")
        return
    loaded = load(model)
    loaded.model.eval()
    train = opened("line", "train")
    trained, trained_pixels = features(loaded, train), pixels_of(train)
    labels = torch.tensor(train.labels)
    tokens = loaded.tokenizer(train.class_names)
    with torch.no_grad():
        texts = normalize(loaded.model.encode_text(tokens), dim=-1)
    means = []
    for seed in (1, 2):
        kept = set(opened("line", "train", shots=8, shots_seed=seed).keys)
        chosen = torch.tensor([key in kept for key in train.keys])
        sums = torch.zeros_like(texts).index_add_(0, labels[chosen], trained[chosen])
        means.append(normalize(sums, dim=-1))
    print("| | pictures | accuracy | ± within classes | ± over classes |\n|---|---|---|---|---|")
    for kind in KINDS:
        test = opened(kind, "test")
        found, pixels = features(loaded, test), pixels_of(test)
        truth = np.array(test.labels)
        right = {
            "zero-shot": (found @ texts.T).argmax(1),
            "nearest mean of 8 shots, draw 1": (found @ means[0].T).argmax(1),
            "nearest training picture, features": nearest(found, trained, labels),
            "nearest training picture, raw pixels": nearest(pixels, trained_pixels, labels),
        }
        rows = {name: (guess.numpy() == truth).astype(float) for name, guess in right.items()}
        second = ((found @ means[1].T).argmax(1).numpy() == truth).astype(float)
        first = rows["nearest mean of 8 shots, draw 1"]
        rows["difference of draws 1 and 2"] = first - second
        for name, values in rows.items():
            within, over = half_widths(values, truth)
            print(
                f"| {kind}: {name} | {len(test):,} | {100 * values.mean():.1f} | {within:.2f} | "
                f"{over:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
