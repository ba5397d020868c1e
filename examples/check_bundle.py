"""Check a bundle, or a port of it, by its golden files: without torch or radapter.

Usage: python check_bundle.py BUNDLE
Exit code 1 if something does not come out. Put your own tokenizer, preprocessing or engine in the
place of one of the three functions to find out whether it is right.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from classify import preprocess
from PIL import Image
from tokenizers import Tokenizer


def token_ids(bundle: Path, texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    return [tokenizer.encode_batch([text])[0].ids for text in texts]


def pixel_values(bundle: Path, pictures: list[str]) -> np.ndarray:
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    return np.concatenate([preprocess(Image.open(bundle / name), config) for name in pictures])


def features(bundle: Path, model: str, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(bundle / "onnx" / model)
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def main(bundle: Path) -> bool:
    golden = json.loads((bundle / "golden" / "golden.json").read_text("utf-8"))
    limits, rows = golden["tolerance"], golden["texts"]["equal"]
    expected = {
        name: np.load(bundle / golden[name], allow_pickle=False)
        for name in ("pixel_values", "image_embeds", "text_embeds")
    }
    got = token_ids(bundle, [row["text"] for row in rows])
    wrong = [row["text"] for row, ids in zip(rows, got, strict=True) if ids != row["ids"]]
    print(f"token ids: {len(rows) - len(wrong)} of {len(rows)} texts", wrong or "OK")
    length = max(len(row["ids"]) for row in rows)
    ids = np.array([row["ids"] + [0] * (length - len(row["ids"])) for row in rows], dtype=np.int64)
    well = not wrong
    for name, values, limit in (
        ("pixel_values", pixel_values(bundle, golden["pictures"]), limits["pixel_values"]),
        ("image_embeds", features(bundle, "vision_model.onnx", expected["pixel_values"]), None),
        ("text_embeds", features(bundle, "text_model.onnx", ids), None),
    ):
        difference = float(np.abs(values - expected[name]).max())
        passed = difference <= (limit or limits["embeds, fp32"])
        well &= passed
        print(f"{name}: largest difference {difference:.1e}", "OK" if passed else "WRONG")
    return well


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1])))
