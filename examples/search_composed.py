"""Search a folder for a picture with something changed, with a bundle, without torch and radapter.

Type:

    pip install onnxruntime numpy Pillow tokenizers
    python search_composed.py BUNDLE PICTURES reference.jpg "the same in blue"

A bundle with a `query_model` makes one query of both, unless `--weight` is given. Else a query is
the sum of the unit-norm features of the reference and of the text. The file `classify.py` has to
lie beside this one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from classify import as_rgb, open_model, preprocess, text_features
from PIL import Image

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def pixel_values(bundle: Path, path: Path) -> np.ndarray:
    """A picture as the towers take it [1, 3, height, width]."""
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    with Image.open(path) as picture:
        return preprocess(as_rgb(picture), config)


def features(bundle: Path, paths: list[Path]) -> np.ndarray:
    """Pictures -> unit-norm features [pictures, dim], one by one."""
    model = open_model(bundle, "vision_model")
    pixels = (pixel_values(bundle, path) for path in paths)
    return np.stack([model.run(None, {"pixel_values": own})[0][0] for own in pixels])


def own_query(bundle: Path, asked: dict, reference: Path, text: str) -> np.ndarray:
    """The query that the bundle's model makes of a picture and a text [dim]."""
    from tokenizers import Tokenizer

    text = asked["template"].replace("{}", text.replace(asked["place"], " "))
    ids = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(text).ids
    given = {"pixel_values": pixel_values(bundle, reference), "input_ids": np.array([ids])}
    return open_model(bundle, "query_model").run(None, given)[0][0]


def main(
    bundle: Path, pictures: Path, reference: Path, text: str, weight: float | None, top: int
) -> None:
    paths = [path for path in sorted(pictures.rglob("*")) if path.suffix.lower() in ENDINGS]
    asked = json.loads((bundle / "manifest.json").read_text("utf-8")).get("query")
    if asked and weight is None:
        query = own_query(bundle, asked, reference, text)
    else:
        weight = 0.5 if weight is None else weight
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
    parser.add_argument("--weight", type=float, help="of the text, from 0 to 1; 0.5 by default")
    parser.add_argument("--top", type=int, default=10)
    main(**vars(parser.parse_args()))
