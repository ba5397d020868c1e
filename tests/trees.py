"""Miniature trees in the layouts in which public sets come: real folder, file and field names."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "brown")
FLICKR_SPLITS = ("train",) * 12 + ("val",) * 4 + ("test",) * 4
COCO_SPLITS = ("test", "restval", "val", "train") * 5


def draw(number: int) -> Image.Image:
    picture = Image.new("RGB", (48, 40), COLOURS[number % 8])
    ImageDraw.Draw(picture).ellipse((4, 4, 20 + number, 30), fill=COLOURS[number // 8 % 8])
    return picture


def encoded(number: int, form: str) -> bytes:
    buffer = io.BytesIO()
    draw(number).save(buffer, form)
    return buffer.getvalue()


def jpeg(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(number, "JPEG"))
    return path


def sentences(number: int, count: int, first: int) -> list[dict[str, Any]]:
    """As Karpathy's files have them; some raw sentences end in a space or a line break."""
    found = []
    for i in range(count):
        words = ["a", COLOURS[number % 8], "picture", "seen", str(i)]
        raw = " ".join(words).capitalize() + (" . " if i % 2 else ".\n")
        found.append({"tokens": words, "raw": raw, "imgid": number, "sentid": first + i})
    return found


def flickr30k(root: Path, pictures: str = "flickr30k-images") -> Path:
    """ROOT/dataset_flickr30k.json and ROOT/flickr30k-images/1000092795.jpg ..."""
    images = []
    for i, split in enumerate(FLICKR_SPLITS):
        name = f"{1000092795 + 7919 * i}.jpg"
        jpeg(root / pictures / name, i)
        images.append(
            {
                "sentids": [5 * i + k for k in range(5)],
                "imgid": i,
                "sentences": sentences(i, 5, 5 * i),
                "split": split,
                "filename": name,
            }
        )
    (root / "dataset_flickr30k.json").write_text(
        json.dumps({"images": images, "dataset": "flickr30k"})
    )
    return root


def coco(root: Path) -> Path:
    """ROOT/dataset_coco.json, the official captions in ROOT/annotations, and the pictures in
    ROOT/train2014 and ROOT/val2014. Every seventh picture has six captions, one has seven."""
    images = []
    official: dict[str, dict[str, list[Any]]] = {
        year: {"images": [], "annotations": []} for year in ("train2014", "val2014")
    }
    for i, split in enumerate(COCO_SPLITS):
        cocoid = 391895 + 1009 * i
        folder = "train2014" if split == "train" else "val2014"
        name = f"COCO_{folder}_{cocoid:012d}.jpg"
        jpeg(root / folder / name, i)
        texts = sentences(i, 7 if i == 14 else 6 if i % 7 == 0 else 5, 100 * i)
        images.append(
            {
                "filepath": folder,
                "sentids": [text["sentid"] for text in texts],
                "filename": name,
                "imgid": i,
                "split": split,
                "sentences": texts,
                "cocoid": cocoid,
            }
        )
        year = official[folder]
        year["images"].append(
            {"license": 1, "file_name": name, "height": 40, "width": 48, "id": cocoid}
        )
        for text in texts:
            entry = {"image_id": cocoid, "id": text["sentid"], "caption": text["raw"]}
            year["annotations"].insert(0, entry)  # not in the order of the images
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    (root / "annotations").mkdir()
    for name, content in official.items():
        (root / "annotations" / f"captions_{name}.json").write_text(
            json.dumps({"info": {"year": 2014}, "licenses": []} | content)
        )
    return root


def distinct_captions(root: Path, shared: str = "") -> Path:
    """Rewrites dataset_*.json so that every caption is a text of its own, but for `shared`, which
    is the fourth caption of the second and third picture of the test split."""
    (path,) = root.glob("dataset_*.json")
    content = json.loads(path.read_text())
    for image in content["images"]:
        for i, sentence in enumerate(image["sentences"]):
            sentence["raw"] = f"Picture {image['imgid']} as {COLOURS[i]} things. "
    if shared:
        for image in [image for image in content["images"] if image["split"] == "test"][1:3]:
            image["sentences"][3]["raw"] = shared
    path.write_text(json.dumps(content))
    return root


def coco_test_karpathy(root: Path) -> Path:
    """ROOT/coco_test_karpathy.json of clip-benchmark, from ROOT/dataset_coco.json: the test split
    in the form of COCO's own captions."""
    content = json.loads((root / "dataset_coco.json").read_text())
    test = [image for image in content["images"] if image["split"] == "test"]
    images = [{"id": image["cocoid"], "file_name": image["filename"]} for image in test]
    annotations = [
        {"image_id": image["cocoid"], "id": sentence["sentid"], "caption": sentence["raw"]}
        for image in test
        for sentence in image["sentences"]
    ]
    path = root / "coco_test_karpathy.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def shard(path: Path, samples: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in samples.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def clip_benchmark(root: Path, task: str = "classification", splits: tuple[str, ...] = ()) -> Path:
    """What clip_benchmark_export_wds writes: ROOT/test/{nshards.txt,0.tar,1.tar} and what is
    beside the splits. Sample keys are s0000000 and on, pictures WebP."""
    for split in splits or ("train", "test"):
        for number in range(2):
            samples = {}
            for i in range(10 * number, 10 * number + 10):
                samples[f"s{i:07d}.webp"] = encoded(i, "WEBP")
                if task == "classification":
                    samples[f"s{i:07d}.cls"] = str(i % 3).encode()
                else:
                    texts = [text["raw"].strip() for text in sentences(i, 5, 0)]
                    samples[f"s{i:07d}.txt"] = "\n".join(texts).encode()
            shard(root / split / f"{number}.tar", samples)
        (root / split / "nshards.txt").write_text("2")
    if task == "classification":
        (root / "classnames.txt").write_text("cat\nred fox\ngolden retriever\n")
        (root / "zeroshot_classification_templates.txt").write_text(
            "a photo of a {c}.\na drawing of the {c}.\n"
        )
    else:
        (root / "dataset_type.txt").write_text("retrieval\n")
    return root


def drawings(root: Path) -> Path:
    """A folder for the source `drawings`: discs by three designers, one with colours of its own."""
    root.mkdir(parents=True)
    y, x = np.mgrid[:16, :16] - 7.5
    discs = [(x**2 + y**2 < (3 + i % 5) ** 2).astype(np.uint8) * 255 for i in range(14)]
    np.save(root / "coverage.npy", np.stack(discs))
    np.save(root / "colours.npy", np.full((2, 16, 16, 3), (200, 30, 40), np.uint8))
    entries = [
        {
            "key": f"{family}/{i}",
            "name": f"disc {i}",
            "family": family,
            "keywords": ["round", "full", "spot", "dot"][: i + 1],
            "phrases": [f"line icon of disc {i}"],
            "pictures": [4 * number + i] + ([4 * number + i + 1] if i % 2 else []),
            "colours": [0 if family == "paint" and i == 0 else -1] + ([-1] if i % 2 else []),
        }
        for number, family in enumerate(("ink", "paint", "chalk"))
        for i in range(4)
    ]
    (root / "drawings.json").write_text(json.dumps(entries))
    return root


def domains(root: Path) -> None:
    """DomainNet, Sketchy as it comes, TU-Berlin as it comes: three pictures a class and domain."""
    of = {
        "DomainNet": (("sketch", "real"), ("ant", "airplane", "bread", "cookie", "zebra")),
        "Sketchy/sketch": (("tx_000000000000",), ("hot-air_balloon", "bat", "cow", "ape", "swan")),
        "Sketchy": (("extended_photo",), ("hot-air_balloon", "bat", "cow", "ape", "swan")),
        "TUBerlin/": (("png",), ("flying bird", "t-shirt", "pipe (for smoking)", "cat", "brain")),
        "TUBerlin": (("ImageResized",), ("flyingbird", "tshirt", "pipe", "cat", "brain")),
    }
    for place, (names, classes) in of.items():
        for domain in names:
            for number, own in enumerate(classes):
                for i in range(3):
                    jpeg(root / place / domain / own / f"{i}.jpg", 8 * i + number)
