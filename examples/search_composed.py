"""Search a folder for a picture with something changed, with a bundle, without torch and radapter.

Type:

    pip install onnxruntime numpy Pillow tokenizers
    python search_composed.py BUNDLE PICTURES reference.jpg "the same in blue"

A query is the sum of the unit-norm features of the reference and of the text. The file
`classify.py` has to lie beside this one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from classify import as_rgb, open_model, preprocess, text_features
from PIL import Image

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def features(bundle: Path, paths: list[Path]) -> np.ndarray:
    """Pictures -> unit-norm features [pictures, dim], one by one."""
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    model = open_model(bundle, "vision_model")
    found = []
    for path in paths:
        with Image.open(path) as picture:
            pixels = preprocess(as_rgb(picture), config)
        found.append(model.run(None, {"pixel_values": pixels})[0][0])
    return np.stack(found)


def main(bundle: Path, pictures: Path, reference: Path, text: str, weight: float, top: int) -> None:
    paths = [path for path in sorted(pictures.rglob("*")) if path.suffix.lower() in ENDINGS]
    query = (1 - weight) * features(bundle, [reference])[0]
    query += weight * text_features(bundle, [text], "fp32")[0]
    cosines = features(bundle, paths) @ (query / np.linalg.norm(query))
    for place in np.argsort(-cosines, kind="stable")[:top]:
        print(f"{cosines[place]:.3f}  {paths[place]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("text")
    parser.add_argument("--weight", type=float, default=0.5, help="of the text, from 0 to 1")
    parser.add_argument("--top", type=int, default=10)
    main(**vars(parser.parse_args()))
