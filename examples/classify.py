"""Classify a picture with a bundle: onnxruntime, numpy and Pillow do, without torch or radapter.

Usage: python classify.py BUNDLE PICTURE [TEXT ...]
Without texts, the bundle's own classes; with texts, the package tokenizers is needed too.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def preprocess(picture: Image.Image, config: dict) -> np.ndarray:
    """Picture -> pixel_values [1, 3, height, width], as preprocessor_config.json says."""
    if "size" not in config:
        sys.exit("This example does not know the bundle's preprocessing.")
    picture = picture.convert("RGB")
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


def text_features(bundle: Path, texts: tuple[str, ...]) -> np.ndarray:
    """Texts -> unit-norm features [texts, dim]."""
    from tokenizers import Tokenizer

    rows = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode_batch(list(texts))
    session = onnxruntime.InferenceSession(bundle / "onnx" / "text_model.onnx")
    return session.run(None, {"input_ids": np.array([row.ids for row in rows])})[0]


def main(bundle: Path, picture: Path, *texts: str) -> None:
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    scale = json.loads((bundle / "config.json").read_text())["logit_scale"]
    names = texts or json.loads((bundle / "classes.json").read_text("utf-8"))["classes"]
    features = text_features(bundle, texts) if texts else np.load(bundle / "class_features.npy")
    session = onnxruntime.InferenceSession(bundle / "onnx" / "vision_model.onnx")
    pixel_values = preprocess(Image.open(picture), config)
    logits = scale * session.run(None, {"pixel_values": pixel_values})[0][0] @ features.T
    shares = np.exp(logits - logits.max())
    for i in np.argsort(-logits, kind="stable")[:5]:
        print(f"{shares[i] / shares.sum():6.1%}  {names[i]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
