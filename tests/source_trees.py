"""A miniature of each source's data: a function by the name of the source (`-` is `_`), which fills
a folder and returns the settings of the data section; paths in them start from that folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coop_tree
import imagenet_tree
import pytest
import trees
import video_trees


def emoji(root: Path) -> dict[str, Any]:
    return {"styles": ["noto", "twemoji"], "split": "test"}


def icons(root: Path) -> dict[str, Any]:
    return {"kinds": ["line", "pixel"], "split": "validation"}


def folder(root: Path) -> dict[str, Any]:
    for i in range(6):
        trees.jpeg(root / "tree" / ("cat", "dog")[i % 2] / f"{i}.jpg", i)
    return {"root": "tree", "split": "all"}


def table(root: Path) -> dict[str, Any]:
    rows = ["filepath,title"]
    for i in range(6):
        trees.jpeg(root / "pictures" / f"{i}.jpg", i)
        rows.append(f"{i}.jpg,picture {i}")
    (root / "t.csv").write_text("\n".join(rows))
    return {"path": "t.csv", "root": "pictures", "split": "all"}


def caption_files(root: Path) -> dict[str, Any]:
    for i in range(4):
        trees.jpeg(root / "tree" / "a" / f"{i}.jpg", i)
        (root / "tree" / "a" / f"{i}.txt").write_text(f"picture {i}\nthe same, {i}\n")
    return {"root": "tree"}


def shards(root: Path) -> dict[str, Any]:
    for number in range(2):
        samples = {}
        for i in range(3):
            samples[f"{i}.jpg"] = trees.encoded(3 * number + i, "JPEG")
            samples[f"{i}.txt"] = f"picture {i}".encode()
        trees.shard(root / f"{number}.tar", samples)
    return {"shards": "{0..1}.tar", "task": "captions", "split": "all"}


def clip_benchmark(root: Path) -> dict[str, Any]:
    trees.clip_benchmark(root / "set")
    return {"root": "set"}


def karpathy(root: Path) -> dict[str, Any]:
    trees.flickr30k(root)
    return {"path": "dataset_flickr30k.json", "split": "test"}


def coco_captions(root: Path) -> dict[str, Any]:
    trees.coco(root)
    return {"path": "annotations/captions_val2014.json"}


def huggingface(root: Path) -> dict[str, Any]:
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": trees.encoded(i, "PNG"), "path": f"{i}.png"} for i in range(6)]
    columns = {"image": pictures, "label": [f"class {i % 2}" for i in range(6)]}
    saved = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    saved.save_to_disk(str(root / "saved"))
    return {"path": "saved", "label_column": "label"}


def imagenet(root: Path) -> dict[str, Any]:
    imagenet_tree.fill(root / "imagenet-r", "r", [1, 2, 657], each=2)
    return {"variant": "r"}


def objectnet(root: Path) -> dict[str, Any]:
    imagenet_tree.fill_objectnet(root / "objectnet-1.0", each=2)
    return {"protocol": "wise-ft-cropped"}


def coop(root: Path) -> dict[str, Any]:
    coop_tree.fill(root, "dtd")
    return {"dataset": "dtd", "shots": 2}


def drawings(root: Path) -> dict[str, Any]:
    trees.drawings(root / "set")
    return {"path": "set", "held_out_families": ["ink"], "split": "all", "task": "captions"}


def domains(root: Path) -> dict[str, Any]:
    trees.domains(root)
    return {"dataset": "domainnet", "domains": ["sketch", "real"], "classes": "unseen"}


def emoji_video(root: Path) -> dict[str, Any]:
    return {"split": "test", "frames": 4, "task": "captions"}


def moving_emoji(root: Path) -> dict[str, Any]:
    return {"split": "test", "frames": 4, "concepts": 2, "start": "random", "task": "captions"}


def videos(root: Path) -> dict[str, Any]:
    """A folder of frames, an animated GIF and a still picture; of videos see tests/data/."""
    rows = []
    for i in range(4):
        if i < 2:
            for k in range(5):
                trees.jpeg(root / "clips" / f"c{i}" / f"{7 + k}.jpg", 5 * i + k)
        else:
            frames = [trees.draw(5 * i + k) for k in range(5 if i == 2 else 1)]
            (root / "clips").mkdir(exist_ok=True)
            frames[0].save(
                root / "clips" / f"c{i}.gif", save_all=True, append_images=frames[1:], duration=40
            )
        rows += [{"video": f"c{i}", "caption": f"clip {i}, {n}"} for n in range(2)]
    (root / "list.json").write_text(json.dumps(rows))
    return {"root": "clips", "path": "list.json", "frames": 3, "split": "all", "task": "captions"}


def video_sets(root: Path) -> dict[str, Any]:
    video_trees.ucf101(root / "ucf101")
    return {"dataset": "ucf101", "split": "train", "frames": 2}


def scenes(root: Path) -> dict[str, Any]:
    return {"pictures": 5, "ground": "clouded"}


def regions(root: Path) -> dict[str, Any]:
    trees.regions(root)
    return {"path": "regions.jsonl", "split": "all"}


def cirr(root: Path) -> dict[str, Any]:
    trees.cirr(root)
    return {}


def circo(root: Path) -> dict[str, Any]:
    trees.circo(root)
    return {}


def fashioniq(root: Path) -> dict[str, Any]:
    trees.fashioniq(root)
    return {"category": "dress"}


def genecis(root: Path) -> dict[str, Any]:
    trees.genecis(root)
    return {"condition": "change_attribute"}


def triplets(root: Path) -> dict[str, Any]:
    trees.triplets(root)
    return {"path": "triplets.jsonl", "root": "pictures"}


def masks(root: Path) -> dict[str, Any]:
    trees.masks(root)
    return {"dataset": "voc"}


def emoji_edits(root: Path) -> dict[str, Any]:
    return {"styles": ["noto", "emojione"], "split": "test", "kinds": ["colour", "clock"]}
