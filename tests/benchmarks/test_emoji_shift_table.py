"""The pictures and answers of a shift, drawn."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytest.importorskip("matplotlib")


def test_a_table_of_pictures_shows_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    shift_table = importlib.import_module("emoji_shift_table")
    red = Image.new("RGB", (64, 64), "#ff0000")
    rows = [
        shift_table.Row(t, [red, red], [[("yes", True)], [("no", False)]]) for t in ("one", "two")
    ]
    shift_table.shift_table(rows, ["noto", "other"], ["zero-shot"], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    share = (pixels == (255, 0, 0)).all(axis=-1).mean()
    assert 0.1 < share < 0.6
