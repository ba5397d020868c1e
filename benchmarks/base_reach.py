"""How far a base model reaches: what it knows of drawings by designers that it never saw.

    python benchmarks/base_reach.py [MODEL ...] [--emoji-packages DIR] [--out FILE]

Icons by name, on laboratory families, in black on white and as the suite draws them; 98 words; both
unseen styles of emoji; the names of 100 noto pictures as they get smaller. With the npm tarballs
that `benchmarks/emoji_set.py` pins (and ``resvg-py==0.5.0``), scenes of five emoji too: mIoU over
their foreground of dense value features, as MaskCLIP takes them.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor

from radapter import models
from radapter.data import emoji
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.icons import IconsData
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.scores import headlines
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.files import write_atomic
from radapter.models import LoadedModel
from radapter.runtimes.opened import from_loaded

OUT = Path(__file__).with_suffix(".json")
SINGLE = (
    "calendar star bookmark folder home lock camera heart flag clock eye tag moon book key cloud "
    "shield globe bell sun map briefcase clipboard rocket trash compass gift keyboard bug trophy "
    "calculator wallet pencil microphone laptop printer car ticket umbrella hourglass anchor "
    "building paperclip brush apple battery ruler barcode headphones coffee diamond crown "
    "lightbulb magnet thermometer wrench bus fire leaf snowflake train truck palette skull tree "
    "bed fingerprint flask watch dice hammer robot scissors glasses microscope stethoscope cake "
    "basket medal cookie planet airplane backpack brain egg fish ghost pill ambulance flower "
    "binoculars ship"
)
WORDS = [
    *SINGLE.split(),
    *("shopping cart", "credit card", "thumbs up", "graduation cap", "alarm clock", "id card"),
]
"""Words that many designers draw; some are unseen concepts of the new base"""
SIZES = (64, 52, 40, 32)
SIDE, SCENES, OBJECTS, VOCABULARY = 192, 50, 5, 40
GROUNDS = ("white", "plain", "clouds")


# ---------------------------------------------------------------- features


@torch.inference_mode()
def of_pictures(model: LoadedModel, pictures: list[Image.Image]) -> Tensor:
    """Features [pictures, dim], unit norm."""
    found = []
    for start in range(0, len(pictures), 64):
        batch = torch.stack([model.preprocess(p) for p in pictures[start : start + 64]])
        found.append(F.normalize(model.model.encode_image(batch), dim=-1))  # type: ignore[operator]
    return torch.cat(found)


@torch.inference_mode()
def of_texts(model: LoadedModel, texts: list[str]) -> Tensor:
    """Features [texts, dim], unit norm."""
    return F.normalize(models.encode_text(model.model, model.tokenize(texts)), dim=-1)


# ---------------------------------------------------------------- names of icons and emoji


def scored(model: LoadedModel, name: str, data: Any, template: str) -> dict[str, Any]:
    """Class accuracy and retrieval with their intervals, in %."""
    suite = Suite(
        name=name,
        templates=[template],
        tasks=["classification", "retrieval"],
        datasets=[SuiteDataset(name=name, role="unseen", data=data)],
    )
    found = evaluate(suite, from_loaded(model)).result()["datasets"][name]
    return {
        metric: {
            "value": round(100 * found[metric]["value"], 1),
            "interval": [round(100 * end, 1) for end in found[metric]["interval"]],
        }
        for metric in headlines()
        if metric in found
    }


def icons_by_name(model: LoadedModel) -> dict[str, Any]:
    """Classes of the built-in icons, test designers."""
    found = {}
    for classes in ("all", "unseen"):
        for kind in ("line", "solid", "two-tone", "colour", "pixel"):
            for drawing in ("plain", "fixed"):
                data = IconsData(
                    source="icons", kinds=[kind], split="test", classes=classes, drawing=drawing
                )
                if classes == "all" or kind in ("line", "solid"):
                    found[f"{classes}, {kind}, {drawing}"] = scored(model, "icons", data, "{}")
    return found


def words(model: LoadedModel) -> dict[str, Any]:
    """The 98 words, as far as they name classes: black on white, all kinds, test designers. `known`
    leaves out words of `unseen` concepts, which the built-in model was never taught."""
    pictures, labels, known, taught = [], [], [], []
    for classes in ("all", "unseen"):
        kinds = ["line", "solid", "two-tone", "colour", "pixel"]
        data = IconsData(
            source="icons", kinds=kinds, split="test", classes=classes, drawing="plain",
            captions=["name", "others"],
        ).open()  # fmt: skip
        for index, label in enumerate(data.labels):
            names = {data.class_names[label], *", ".join(data.captions[index]).split(", ")}
            own = [word for word in WORDS if word in names]
            if own:
                known += own[:1] if own[0] not in known else []
                pictures.append(data.read(index))
                labels.append(known.index(own[0]))
                taught.append(classes == "all")
    answers = (of_pictures(model, pictures) @ of_texts(model, known).T).argmax(1)
    right = answers == torch.tensor(labels)
    return {
        "words": len(known), "pictures": len(pictures),
        "accuracy": round(100 * right.float().mean().item(), 1),
        "known": round(100 * right[torch.tensor(taught)].float().mean().item(), 1),
    }  # fmt: skip


def smaller(model: LoadedModel) -> dict[str, float]:
    """Names found of 100 noto pictures by their size on a white ground of 64 pixels, in %."""
    concepts = [concept for concept in emoji.concepts() if concept["fold"] == 0][:100]
    texts = of_texts(model, [concept["name"] for concept in concepts])
    found = {}
    for size in SIZES:
        pictures = []
        for concept in concepts:
            picture = Image.new("RGB", (64, 64), "white")
            drawn = emoji.picture("noto", concept["hexcode"])
            drawn = drawn.resize((size, size), Image.Resampling.LANCZOS)
            picture.paste(drawn, ((64 - size) // 2, (64 - size) // 2))
            pictures.append(picture)
        right = (of_pictures(model, pictures) @ texts.T).argmax(1) == torch.arange(100)
        found[str(size)] = round(100 * right.float().mean().item(), 1)
    return found


# ---------------------------------------------------------------- scenes


def vocabulary() -> list[dict[str, Any]]:
    """Concepts of fold 0 that are things."""
    people = ("symbols", "smileys & emotion", "people & body")
    concepts = [c for c in emoji.concepts() if c["fold"] == 0 and c["group"] not in people]
    order = np.random.default_rng(0).permutation(len(concepts))[:VOCABULARY]
    return [concepts[i] for i in order]


def noto(packages: Path, concepts: list[dict[str, Any]]) -> list[Image.Image]:
    """The concepts in noto, RGBA, drawn from the pinned packages."""
    import emoji_set
    import resvg_py

    _, icons, chars = emoji_set.sources(packages)
    matched = emoji_set.match({c["hexcode"]: c for c in emoji.concepts()}, icons, chars)["noto"]
    pictures = []
    for concept in concepts:
        document = emoji_set.svg(icons["noto"], matched[concept["hexcode"]])
        png = resvg_py.svg_to_bytes(
            svg_string=document, width=64, height=64, skip_system_fonts=True
        )
        pictures.append(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    return pictures


def ground(kind: str, r: np.random.Generator) -> np.ndarray:
    if kind == "white":
        return np.full((SIDE, SIDE, 3), 255.0)
    if kind == "plain":
        return np.ones((SIDE, SIDE, 3)) * r.integers(120, 256, 3)
    few = r.integers(60, 256, (6, 6, 3)).astype(np.uint8)
    cloud = Image.fromarray(few).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(cloud).astype(float)


def scene(drawings: list[Image.Image], kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its mask: 0 is the ground, the others are concepts from 1 on."""
    r = np.random.default_rng(seed)
    picture, mask = ground(kind, r), np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[tuple[int, int, int]] = []
    for _ in range(200):
        if len(boxes) == OBJECTS:
            break
        k = int(r.integers(56, 73))
        x, y = int(r.integers(0, SIDE - k + 1)), int(r.integers(0, SIDE - k + 1))
        if any(
            min(x + k, a + b) - max(x, a) > 0.25 * min(k, b)
            and min(y + k, c + b) - max(y, c) > 0.25 * min(k, b)
            for a, c, b in boxes
        ):
            continue
        number = int(r.integers(len(drawings)))
        drawn = drawings[number].resize((k, k), Image.Resampling.LANCZOS)
        pixels = np.asarray(drawn).astype(float)
        alpha = pixels[..., 3:] / 255
        part = picture[y : y + k, x : x + k]
        picture[y : y + k, x : x + k] = part * (1 - alpha) + pixels[..., :3] * alpha
        mask[y : y + k, x : x + k][alpha[..., 0] > 0.5] = number + 1
        boxes.append((x, y, k))
    return picture.clip(0, 255).astype(np.uint8), mask


@torch.inference_mode()
def dense(model: LoadedModel, pictures: np.ndarray) -> Tensor:
    """Value features [pictures, rows, columns, dim], unit norm, of an open_clip ViT."""
    v: Any = model.model.visual
    cfg = model.config["preprocess_cfg"]
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    x = v.conv1((x - mean) / std)
    side, (rows, columns) = x.shape[-1], v.grid_size
    x = x.flatten(2).transpose(1, 2)
    first, grid = v.positional_embedding[:1], v.positional_embedding[1:]
    grid = grid.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(side * side, -1)
    start = v.class_embedding.expand(len(x), 1, -1)
    x = v.ln_pre(torch.cat([start, x], 1) + torch.cat([first, grid]))
    *blocks, last = v.transformer.resblocks
    for block in blocks:
        x = block(x)
    width = x.shape[-1]
    weight = last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
    x = v.ln_post(last.attn.out_proj(F.linear(last.ln_1(x), *weight))[:, 1:]) @ v.proj
    return F.normalize(x, dim=-1).reshape(len(pictures), side, side, -1)


def segmentation(model: LoadedModel, packages: Path) -> dict[str, float]:
    """mIoU over the foreground, in %; by ground."""
    concepts = vocabulary()
    drawings = noto(packages, concepts)
    texts = of_texts(model, [concept["name"] for concept in concepts])
    found = {}
    for kind in GROUNDS:
        scenes = [scene(drawings, kind, 1020 + i) for i in range(SCENES)]
        truth = torch.from_numpy(np.stack([mask for _, mask in scenes]))
        answers = []
        for picture, _ in scenes:
            logits = (dense(model, picture[None]) @ texts.T).permute(0, 3, 1, 2)
            logits = F.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
            answers.append(logits.argmax(1) + 1)
        found[kind] = round(100 * miou(torch.cat(answers), truth), 1)
    return found


def miou(answers: Tensor, truth: Tensor) -> float:
    """Mean over the classes that are there, on foreground pixels."""
    shares = []
    for number in truth[truth > 0].unique():
        answered, right = (answers == number) & (truth > 0), truth == number
        shares.append(((answered & right).sum() / (answered | right).sum()).item())
    return float(np.mean(shares))


def reach(name: str, packages: Path | None) -> dict[str, Any]:
    """All of it for one model."""
    model = models.load(name)
    both = EmojiData(source="emoji", styles=["emojione", "emojione-monotone"], split="all")
    test = both.model_copy(update={"split": "test"})
    names_alone = "{}"
    found = {
        "weights_hash": model.weights_hash,
        "emojione, all concepts": scored(model, "emojione", both, names_alone),
        "emojione, fold 0": scored(model, "emojione", test, names_alone),
        "noto, fold 0": scored(
            model, "noto", EmojiData(source="emoji", styles=["noto"], split="test"), names_alone
        ),
        "names of 100 noto pictures by size": smaller(model),
        "98 words": words(model),
        "icons": icons_by_name(model),
    }
    if packages:
        found["dense value features, mIoU of the foreground"] = segmentation(model, packages)
    return found


def main(
    model: Annotated[list[str] | None, typer.Argument(help="Models as recipes name them.")] = None,
    emoji_packages: Annotated[
        Path | None, typer.Option(help="Folder of the pinned npm tarballs, for the scenes.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Results by model; others in it stay.")] = OUT,
) -> None:
    """Measure each model and keep the numbers."""
    known = json.loads(out.read_text()) if out.is_file() else {}
    for name in model or ["pictogram-clip"]:
        known[Path(name).name] = reach(name, emoji_packages)
        write_atomic(out, json.dumps(known, indent=1) + "\n")
        print(json.dumps({name: known[Path(name).name]}, indent=1), flush=True)


if __name__ == "__main__":
    typer.run(main)
