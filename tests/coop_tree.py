"""Miniatures of CoOp's eleven sets: the real folders, file names, class names and split files.

Five classes of each (ImageNet: six), of which the first three are base. A picture has the colour of
its class, which is that of its label in the split file.
"""

from __future__ import annotations

import json
from pathlib import Path

import imagenet_tree
from imagenet_tree import colour, picture

from radapter.data.sources.imagenet import class_names, synsets

EACH = {"train": 6, "val": 5, "test": 2}
ORDER = (2, 0, 4, 1, 3)
"""In which a split file first names the classes"""
# By set: its folder, the pictures' folder, the split file, and for each class its folder (or the
# start of its file names, where all pictures lie in one folder) and its name in the split file.
SETS = {
    "caltech101": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", {
        "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike",
        "accordion": "accordion", "airplanes": "airplane"}),
    "dtd": ("dtd", "images", "split_zhou_DescribableTextures.json", {
        n: n for n in ("banded", "blotchy", "braided", "bubbly", "polka-dotted")}),
    "eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json", {
        "AnnualCrop": "Annual Crop Land", "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land", "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings"}),
    "fgvc_aircraft": ("fgvc_aircraft", "images", "", {
        n: n for n in ("707-320", "Cessna 172", "DH-82", "Global Express", "Yak-42")}),
    "food101": ("food-101", "images", "split_zhou_Food101.json", {
        n: n for n in ("apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", "waffles")}),
    "oxford_flowers": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", {
        n: n for n in ("pink primrose", "hard-leaved pocket orchid", "canterbury bells",
                       "sweet pea", "bird of paradise")}),
    "oxford_pets": ("oxford_pets", "images", "split_zhou_OxfordPets.json", {
        "Abyssinian": "abyssinian", "american_bulldog": "american_bulldog",
        "basset_hound": "basset_hound", "Bengal": "bengal", "Birman": "birman"}),
    "stanford_cars": ("stanford_cars", "", "split_zhou_StanfordCars.json", {
        n: n for n in ("2000 AM General Hummer SUV", "2012 Acura RL Sedan",
                       "2008 Acura TL Type-S", "2012 Acura TSX Sedan",
                       "2001 Acura Integra Type R")}),
    "sun397": ("sun397", "SUN397", "split_zhou_SUN397.json", {
        "a/abbey": "abbey", "a/airplane_cabin": "airplane_cabin", "a/apse/indoor": "indoor apse",
        "b/bazaar/outdoor": "outdoor bazaar", "y/youth_hostel": "youth_hostel"}),
    "ucf101": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", {
        n: n for n in ("Apply_Eye_Makeup", "Archery", "Baby_Crawling", "Yo_Yo", "YoYo_Other")}),
}  # fmt: skip
ALL = ("imagenet", *SETS)
IMAGENET_CLASSES = (0, 1, 2, 500, 657, 999)


def file_name(dataset: str, folder: str, number: int, split: str) -> str:
    """Path below the pictures' folder, as each set calls its files; `number` counts the set's."""
    return {
        "caltech101": f"{folder}/image_{number:04d}.jpg",
        "dtd": f"{folder}/{folder}_{number:04d}.jpg",
        "eurosat": f"{folder}/{folder}_{number}.jpg",
        "fgvc_aircraft": f"{number + 34309:07d}.jpg",
        "food101": f"{folder}/{1005649 + number}.jpg",
        "oxford_flowers": f"image_{number:05d}.jpg",
        "oxford_pets": f"{folder}_{number}.jpg",
        "stanford_cars": f"{'cars_test' if split == 'test' else 'cars_train'}/{number:05d}.jpg",
        "sun397": f"{folder}/sun_a{number:015d}.jpg",
        "ucf101": f"{folder}/v_{folder.replace('_', '')}_g{number:02d}_c01.jpg",
    }[dataset]


def rows(dataset: str) -> dict[str, list[tuple[str, int, str]]]:
    """The split file: rows of [path, label, class name], the classes in ORDER."""
    *_, classes = SETS[dataset]
    named = list(classes.items())
    found: dict[str, list[tuple[str, int, str]]] = {}
    number = 0
    for split, each in EACH.items():
        found[split] = []
        for label in ORDER:
            folder, name = named[label]
            for _ in range(each):
                number += 1
                found[split].append((file_name(dataset, folder, number, split), label, name))
    return found


def fill(data: Path, dataset: str) -> Path:
    """One set under the data root; returns its folder."""
    if dataset == "imagenet":
        return fill_imagenet(data)
    folder, pictures, split_file, classes = SETS[dataset]
    root = data / folder
    splits = rows(dataset)
    for split in splits.values():
        for path, label, _ in split:
            picture(root / pictures / path, colour(label))
    if dataset == "caltech101":  # in the archive, and no class of the benchmark
        for name in ("BACKGROUND_Google", "Faces_easy"):
            picture(root / pictures / name / "image_0001.jpg", (9, 9, 9))
    if split_file:
        (root / split_file).write_text(json.dumps(splits, indent=4))
        return root
    (root / "variants.txt").write_text("".join(f"{name}\n" for name in classes))
    for split, items in splits.items():
        lines = (f"{path.removesuffix('.jpg')} {name}\n" for path, _, name in items)
        (root / f"images_variant_{split}.txt").write_text("".join(lines))
    return root


def fill_imagenet(data: Path) -> Path:
    """imagenet/images/{train,val} and classnames.txt, whose names are not open_clip's."""
    root = data / "imagenet"
    imagenet_tree.fill(root / "images" / "train", "train", IMAGENET_CLASSES, each=EACH["train"])
    imagenet_tree.fill(root / "images" / "val", "val", IMAGENET_CLASSES, each=EACH["test"])
    lines = (f"{s} coop's {n}\n" for s, n in zip(synsets(), class_names(), strict=True))
    (root / "classnames.txt").write_text("".join(lines))
    return root


def fill_all(data: Path) -> Path:
    for dataset in ALL:
        fill(data, dataset)
    return data
