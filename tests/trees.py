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


def regions(root: Path) -> Path:
    """Two pictures with three regions each in ROOT/regions.jsonl: a mask of two numbers, a box, and
    one that the mask has beside them."""
    rows = []
    for i in range(2):
        jpeg(root / "pictures" / f"{i}.jpg", i)
        width, height = draw(i).size
        mask = Image.new("L", (width, height))
        mask.paste(1, (0, 0, width // 2, height // 2))
        mask.paste(7, (width // 2, height // 2, width, height))
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{i}.png")
        of = {"image": f"pictures/{i}.jpg"}
        rows += [
            of | {"name": "both", "mask": f"masks/{i}.png"},
            of | {"name": "right_side", "mask": f"masks/{i}.png", "value": 7},
            of | {"name": "box", "box": [2, 3, 12.4, 8]},
        ]
    (root / "regions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


def cirr(root: Path) -> Path:
    """ROOT/CIRR with ROOT/CIRR/cirr's two files a split; eight pictures and four edits each."""
    for own, folder in (("val", "dev"), ("test1", "test1"), ("train", "train/34")):
        names = [f"{Path(folder).parts[0]}-{i}-0-img{i % 2}" for i in range(8)]
        paths = {name: f"./{folder}/{name}.png" for name in names}
        for i, path in enumerate(paths.values()):
            png = root / "CIRR" / path
            png.parent.mkdir(parents=True, exist_ok=True)
            png.write_bytes(encoded(i, "PNG"))
        edits = []
        for i in range(4):
            members = names[i : i + 4]  # the reference is the second, the target the third of them
            entry = {"pairid": 12060 + i, "reference": members[1], "caption": f"paint it {i}",
                     "img_set": {"id": i, "members": members, "reference_rank": 1}}  # fmt: skip
            edits.append(entry | ({} if own == "test1" else {"target_hard": members[2]}))
        captions = root / "CIRR" / "cirr" / "captions" / f"cap.rc2.{own}.json"
        splits = root / "CIRR" / "cirr" / "image_splits" / f"split.rc2.{own}.json"
        write_json(captions, edits)
        write_json(splits, paths)
    return root


def circo(root: Path) -> Path:
    """ROOT/CIRCO as its repository and COCO have it: eight pictures, three edits a split."""
    coco = root / "CIRCO" / "COCO2017_unlabeled"
    ids = [243611 + 7919 * i for i in range(8)]
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 40, "width": 48} for n in ids]
    for i, image in enumerate(images):
        jpeg(coco / "unlabeled2017" / str(image["file_name"]), i)
    write_json(coco / "annotations" / "image_info_unlabeled2017.json", {"images": images})
    for own in ("val", "test"):
        edits = []
        for i in range(3):
            entry = {"id": i, "reference_img_id": ids[i], "relative_caption": f"has {i} more",
                     "shared_concept": "a shape"}  # fmt: skip
            right = {"target_img_id": ids[i + 1], "gt_img_ids": ids[i + 1 : i + 3 + i]}
            edits.append(entry | (right if own == "val" else {}))
        write_json(root / "CIRCO" / "annotations" / f"{own}.json", edits)
    return root


def fashioniq(root: Path) -> Path:
    """ROOT/FashionIQ with dresses: eight pictures in the split, six of them in its three edits."""
    names = [f"B00{9 + i}PMCJLW" for i in range(8)]
    for i, name in enumerate(names):
        jpeg(root / "FashionIQ" / "images" / f"{name}.jpg", i)
    edits = [
        {"target": names[2 * i + 1], "candidate": names[2 * i],
         "captions": [f"is more {COLOURS[i]}.", " has longer sleeves"]}
        for i in range(3)
    ]  # fmt: skip
    for split in ("train", "val"):
        write_json(root / "FashionIQ" / "captions" / f"cap.dress.{split}.json", edits)
        write_json(root / "FashionIQ" / "image_splits" / f"split.dress.{split}.json", names)
    return root


def genecis(root: Path) -> Path:
    """ROOT/GeneCIS with an object task and an attribute task: three edits among four each."""
    tasks: dict[str, list[Any]] = {"focus_object": [], "change_attribute": []}
    things = [{"image_id": 2414890 + i // 2, "instance_bbox": [10 * (i % 2), 5, 20, 10]}
              for i in range(8)]  # fmt: skip
    photos = [{"val_image_id": 189213 + i} for i in range(8)]
    for i in range(8):
        jpeg(root / "GeneCIS" / "val2017" / f"{189213 + i:012d}.jpg", i)
        jpeg(root / "GeneCIS" / "VG_100K_all" / f"{2414890 + i // 2}.jpg", i // 2)
    for own, entries in zip((photos, things), tasks.values(), strict=True):
        for i in range(3):
            entry = {"condition": COLOURS[i], "reference": own[i], "target": own[i + 1]}
            entries.append(entry | {"gallery": own[i + 2 : i + 5]})
    for name, entries in tasks.items():
        write_json(root / "GeneCIS" / "genecis" / f"{name}.json", entries)
    return root


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def masks(root: Path) -> None:
    """VOC 2012, Pascal-Context and ADE20K, four pictures of 48 x 40 each: left half class 1, right
    half class 5, the first row 0, the last one 255; ADE20K has 150 names of two words."""
    mask = np.full((40, 48), 1, np.uint8)
    mask[:, 24:], mask[0], mask[-1] = 5, 0, 255
    picture = Image.fromarray(mask, "P")
    picture.putpalette([7 * i % 256 for i in range(768)])
    of = {
        "VOCdevkit/VOC2012": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
        "VOCdevkit/VOC2010": (
            "JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext"
        ),
        "ADEChallengeData2016": ("images/validation", "annotations/validation", None),
    }  # fmt: skip
    for place, (pictures, masks_of, lists) in of.items():
        names = [f"2007_00{i}" for i in range(4)]
        for i, name in enumerate(names):
            jpeg(root / place / pictures / f"{name}.jpg", i)
            (root / place / masks_of).mkdir(parents=True, exist_ok=True)
            picture.save(root / place / masks_of / f"{name}.png")
        if lists:
            (root / place / lists).mkdir(parents=True)
            (root / place / lists / "val.txt").write_text("\n".join(names))
    rows = ["Idx\tRatio\tTrain\tVal\tName"]
    rows += [f"{i}\t0.1\t1\t1\tthing {i}, object {i}" for i in range(1, 151)]
    (root / "ADEChallengeData2016" / "objectInfo150.txt").write_text("\n".join(rows))


def triplets(root: Path) -> None:
    """Five pictures, two edits of the first, and captions for rules."""
    rows = [{"image": f"{i}.jpg", "edit": f"make it {c}", "target": f"a {c} thing"}
            for i, c in ((0, "red"), (0, "blue"), (1, "green"))]  # fmt: skip
    rows += [{"image": f"{i}.jpg", "caption": f"two red apples and a dog, {i}"} for i in (2, 3)]
    rows += [{"image": "4.jpg", "caption": "nothing of the lists"}, rows[0] | {"image": "4.jpg"}]
    for i in range(5):
        jpeg(root / "pictures" / f"{i}.jpg", i)
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (root / "triplets.jsonl").write_text(lines + "\n", encoding="utf-8")
