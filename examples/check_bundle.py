"""Check a bundle, or a port of it, by its golden files, without torch and radapter.

    pip install onnxruntime numpy Pillow tokenizers
    python check_bundle.py BUNDLE          # fp32
    python check_bundle.py BUNDLE int8     # the files of another precision

It prints OK or WRONG for token ids, pixels and the features of both towers; exit code 1 if one is
wrong. To test a port, put your own tokenizer, preprocessing or engine in the place of
`token_ids`, `pixel_values` or `features`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from classify import open_model, preprocess
from PIL import Image
from tokenizers import Tokenizer


def token_ids(bundle: Path, texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    return [tokenizer.encode_batch([text])[0].ids for text in texts]


def pixel_values(bundle: Path, pictures: list[str]) -> np.ndarray:
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    return np.concatenate([preprocess(Image.open(bundle / name), config) for name in pictures])


def features(bundle: Path, model: str, precision: str, inputs: np.ndarray) -> np.ndarray:
    session = open_model(bundle, model, precision)
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def main(bundle: Path, precision: str = "fp32") -> bool:
    golden = json.loads((bundle / "golden" / "golden.json").read_text("utf-8"))
    limits, rows = golden["tolerance"], golden["texts"]["equal"]
    expected = {
        name: np.load(bundle / golden[name], allow_pickle=False)
        for name in ("pixel_values", "image_embeds", "text_embeds", "video_embeds")
        if name in golden
    }
    got = token_ids(bundle, [row["text"] for row in rows])
    wrong = [row["text"] for row, ids in zip(rows, got, strict=True) if ids != row["ids"]]
    print(f"token ids: {len(rows) - len(wrong)} of {len(rows)} texts", wrong or "OK")
    found = pixel_values(bundle, golden["pictures"])
    difference = float(np.abs(found - expected["pixel_values"]).max())
    passed = difference <= limits["pixel_values"]
    well = passed and not wrong
    print(f"pixel_values: largest difference {difference:.1e}", "OK" if passed else "WRONG")
    length = max(len(row["ids"]) for row in rows)
    ids = np.array([row["ids"] + [0] * (length - len(row["ids"])) for row in rows], dtype=np.int64)
    towers = [
        ("image_embeds", "vision_model", expected["pixel_values"]),
        ("text_embeds", "text_model", ids),
    ]
    if "clips" in golden:  # of a model of clips; frames that are none are NaN
        pixels = expected["pixel_values"]
        shape = len(golden["clips"]), golden["frames"], *pixels.shape[1:]
        clips = np.full(shape, np.nan, dtype=np.float32)
        for clip, pictures in zip(clips, golden["clips"], strict=True):
            clip[: len(pictures)] = pixels[pictures]
        towers.append(("video_embeds", "video_model", clips))
    for name, model, inputs in towers:
        found = features(bundle, model, precision, inputs)
        if precision == "fp32":
            figure = float(np.abs(found - expected[name]).max())
            passed, said = figure <= limits["embeds, fp32"], f"largest difference {figure:.1e}"
        else:
            figure = float((found * expected[name]).sum(axis=1).min())  # both have unit norm
            passed, said = figure >= limits[f"worst cosine, {precision}"], f"worst cosine {figure}"
        well = well and passed
        print(f"{name}: {said}", "OK" if passed else "WRONG")
    return well


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(not main(Path(sys.argv[1]), *sys.argv[2:]))
