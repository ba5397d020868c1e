"""What differences the test pictures of the built-in icons can show, and what raw pixels do there.

    python benchmarks/icon_power.py [--model pictogram-clip]

For line and solid: zero-shot accuracy, and accuracy by the nearest mean of the features of 8 shots;
half-widths of 95 % intervals, of the accuracy and of the paired difference of two such classifiers
(draws 1 and 2, as an example of two tuned models), when pictures are resampled within classes and
when classes are. Beside them the nearest of all training pictures, by features and by raw 16 x 16
grey pixels: pixels have to lose clearly, since colours, size and place are drawn at random.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn.functional import normalize

from radapter.data import Dataset, open_data
from radapter.data.sources.icons import IconsData
from radapter.models import LoadedModel, load

RESAMPLINGS = 2000
KINDS = ("line", "solid")


def opened(kind: str, split: str, **values: object) -> Dataset:
    return open_data(IconsData(source="icons", kinds=[kind], split=split, **values))


@torch.no_grad()
def features(model: LoadedModel, dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and raw pixels, [pictures, n], both of length 1."""
    found, pixels = [], []
    for start in range(0, len(dataset), 256):
        pictures = [dataset.read(i) for i in range(start, min(start + 256, len(dataset)))]
        batch = torch.stack([model.preprocess(picture) for picture in pictures])
        found.append(model.model.encode_image(batch))
        grey = [np.asarray(p.convert("L").resize((16, 16)), np.float32) for p in pictures]
        rows = torch.from_numpy(np.stack(grey)).flatten(1)
        pixels.append(rows - rows.mean(1, keepdim=True))
    return normalize(torch.cat(found), dim=-1), normalize(torch.cat(pixels), dim=-1)


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


def nearest(rows: torch.Tensor, others: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels[(rows @ others.T).argmax(1)]


def main(model: Annotated[str, typer.Option(help="A model.")] = "pictogram-clip") -> None:
    """Print the table."""
    loaded = load(model)
    loaded.model.eval()
    train = opened("line", "train")
    trained, trained_pixels = features(loaded, train)
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
        found, pixels = features(loaded, test)
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
