"""Classify a picture with a bundle that `radapter export` wrote, without torch and radapter.

Type:

    pip install onnxruntime numpy Pillow tokenizers
    python classify.py BUNDLE PICTURE                   # among the bundle's own classes
    python classify.py BUNDLE PICTURE "a cat" "a dog"   # among texts of yours (with tokenizers)
    python classify.py --precision int8 BUNDLE PICTURE
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def open_model(bundle: Path, name: str, precision: str = "fp32") -> onnxruntime.InferenceSession:
    """A tower, `vision_model` or `text_model`, on the CPU."""
    suffix = "" if precision == "fp32" else f"_{precision}"
    # On fp16 files, that optimizer crashes the process (onnxruntime 1.26 to 1.32).
    disabled = ["NchwcTransformer"] if precision == "fp16" else []
    return onnxruntime.InferenceSession(
        bundle / "onnx" / f"{name}{suffix}.onnx", disabled_optimizers=disabled
    )


def as_rgb(picture: Image.Image) -> Image.Image:
    """The picture as it is seen: turned as its EXIF orientation says, 16 bits scaled to 8, what is
    transparent on white."""
    mode, form = picture.mode, picture.format
    clear = picture.info.get("transparency")
    tags = getattr(picture, "tag_v2", {})  # of a TIFF, which may have 12 bits or a white of 0
    white = 2 ** tags.get(258, (16,))[0] - 1
    if max(picture.size) > 200 * min(picture.size):
        sys.exit("The picture is more than 200 times as long as wide.")
    picture = ImageOps.exif_transpose(picture)
    if mode.startswith("I;16") or (mode == "I" and form in ("PNG", "PPM")):
        samples = np.asarray(picture).astype(np.uint32)
        samples = white - samples if tags.get(262) == 0 else samples
        picture = Image.fromarray(((samples * 255 + white // 2) // white).astype(np.uint8))
        if isinstance(clear, int):  # PNG: the one value that is transparent
            alpha = np.where(samples == clear, 0, 255).astype(np.uint8)
            picture.putalpha(Image.fromarray(alpha))
    elif mode in ("I", "F"):
        sys.exit("Samples of 32 bits have no known white: save the picture with 8 bits.")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":
        picture = picture.convert("LA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def preprocess(picture: Image.Image, config: dict) -> np.ndarray:
    """Picture -> pixel_values [1, 3, height, width], as preprocessor_config.json says."""
    if "size" not in config:
        sys.exit("This example does not know the bundle's preprocessing.")
    picture = as_rgb(picture)
    (width, height), size, crop = picture.size, config["size"], config["crop_size"]
    if "shortest_edge" in size:
        edge, short = size["shortest_edge"], min(width, height)
        width, height = int(edge * width / short), int(edge * height / short)
    else:
        width, height = size["width"], size["height"]
    picture = picture.resize((width, height), config["resample"])
    if config["do_center_crop"]:
        left, top = round((width - crop["width"]) / 2), round((height - crop["height"]) / 2)
        picture = picture.crop((left, top, left + crop["width"], top + crop["height"]))
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
    pixels = (pixels - np.float32(config["image_mean"])) / np.float32(config["image_std"])
    return pixels.transpose(2, 0, 1)[None]


def text_features(bundle: Path, texts: list[str], precision: str) -> np.ndarray:
    """Texts -> unit-norm features [texts, dim]."""
    from tokenizers import Tokenizer

    rows = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode_batch(texts)
    session = open_model(bundle, "text_model", precision)
    return session.run(None, {"input_ids": np.array([row.ids for row in rows])})[0]


def main(bundle: Path, picture: Path, texts: list[str], precision: str) -> None:
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    scale = json.loads((bundle / "config.json").read_text())["logit_scale"]
    names = texts or json.loads((bundle / "classes.json").read_text("utf-8"))["classes"]
    if texts:
        features = text_features(bundle, texts, precision)
    else:
        features = np.load(bundle / "class_features.npy")
    session = open_model(bundle, "vision_model", precision)
    pixel_values = preprocess(Image.open(picture), config)
    logits = scale * session.run(None, {"pixel_values": pixel_values})[0][0] @ features.T
    shares = np.exp(logits - logits.max())
    for i in np.argsort(-logits, kind="stable")[:5]:
        print(f"{shares[i] / shares.sum():6.1%}  {names[i]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32")
    main(**vars(parser.parse_args()))
