"""Miniatures of ImageNet and its shifts: the real folders, file names and lists, tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from radapter.data.sources.imagenet import lemmas, synsets

SIZE = 12
RED = (255, 0, 0)
# The real ways in which files of each set are called; {n} is the number within the class.
FILES = {
    "train": "{wnid}_{n:d}.JPEG",
    "val": "ILSVRC2012_val_{n:08d}.JPEG",
    "v2": "{n:040x}.jpeg",
    "r": "art_{n:d}.jpg",
    "a": "0.{n:06d}_digital clock _ digital clock_0.865662.jpg",
    "sketch": "sketch_{n:d}.JPEG",
}
# ObjectNet's own folders and labels; a folder is not its label in lower case.
OBJECTNET_FOLDERS = {
    "alarm_clock": "Alarm clock",
    "dress": "Dress",
    "drying_rack_for_dishes": "Drying rack for plates",
    "full_sized_towel": "Bath towel",
    "air_freshener": "Air freshener",  # no class of ImageNet's
}
OBJECTNET_OVERLAP = {
    "Alarm clock": "analog clock; digital clock",
    "Bath towel": "bath towel",
    "Dress": "gown",
    "Drying rack for plates": "plate rack",
}
OBJECTNET_LINES = {409: 426, 530: 427, 578: 818, 434: 816, 729: 636}
"""Class of ImageNet -> line of imagenet_to_label_2012_v2, from 0, as in the published file"""


def colour(label: int) -> tuple[int, int, int]:
    """One for every class, far enough apart to survive JPEG."""
    return (20 * (label % 11), 20 * (label // 11 % 11), 20 * (label // 121))


def picture(path: Path, rgb: tuple[int, int, int], size: int = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), rgb).save(path)


def fill(
    root: Path, variant: str, labels: Sequence[int], each: int = 1, *, numbered: bool = False
) -> Path:
    """Class folders of one variant, `each` pictures in every one of `labels`."""
    for label in labels:
        wnid = synsets()[label]
        for i in range(each):
            name = FILES[variant].format(wnid=wnid, n=1 + i + each * label)
            picture(root / (str(label) if numbered else wnid) / name, colour(label))
    if variant in ("r", "a"):
        (root / "README.txt").write_text("This is the ... dataset\n" + "\n".join(synsets()[:5]))
    return root


def fill_flat(root: Path, labels: Mapping[int, int]) -> Path:
    """The flat validation set: number of the picture -> class."""
    for number, label in labels.items():
        picture(root / FILES["val"].format(n=number), colour(label))
    return root


def write_kaggle_list(path: Path, labels: Mapping[int, int]) -> None:
    """LOC_val_solution.csv: the class once for every box."""
    rows = ["ImageId,PredictionString"]
    for number, label in labels.items():
        boxes = " ".join(f"{synsets()[label]} 85 1 499 {272 + i}" for i in range(1 + number % 2))
        rows.append(f"ILSVRC2012_val_{number:08d},{boxes} ")
    path.write_text("\n".join(rows) + "\n")


def fill_objectnet(root: Path, each: int = 1, *, border: tuple[int, int, int] = RED) -> Path:
    """objectnet-1.0: pictures with the one-pixel border, the four mappings in their real form."""
    for number, folder in enumerate(OBJECTNET_FOLDERS):
        for i in range(each):
            path = root / "images" / folder / f"{number:08x}{i:08x}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            framed = Image.new("RGB", (SIZE, SIZE), border)
            framed.paste(colour(7 + number), (1, 1, SIZE - 1, SIZE - 1))
            framed.save(path)
    (root / "mappings").mkdir()
    lines = [f"some other class {i}" for i in range(1000)]
    for label, line in OBJECTNET_LINES.items():
        lines[line] = lemmas()[label]
    (root / "mappings" / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    for name, content in {
        "folder_to_objectnet_label": OBJECTNET_FOLDERS,
        "objectnet_to_imagenet_1k": OBJECTNET_OVERLAP,
        "pytorch_to_imagenet_2012_id": {str(k): v for k, v in OBJECTNET_LINES.items()},
    }.items():
        (root / "mappings" / f"{name}.json").write_text(json.dumps(content, indent=2))
    return root


def fill_suite(root: Path) -> Path:
    """Every data set of imagenet-shifts, in the folders that the archives unpack to."""
    fill(root / "imagenet" / "val", "val", [0, 1, 657, 744])
    v2 = "imagenetv2-matched-frequency-format-val"
    fill(root / v2, "v2", [0, 1, 2, 10, 11, 100], numbered=True)
    fill(root / "imagenet-r", "r", [1, 2, 657])
    fill(root / "imagenet-a", "a", [6, 11])
    fill(root / "sketch", "sketch", [0, 999])
    fill_objectnet(root / "objectnet-1.0")
    return root
