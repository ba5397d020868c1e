"""The examples, which know nothing of radapter, read pictures as it does."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radapter.data.pixels import read_picture

EXAMPLE = Path(__file__).parents[2] / "examples" / "classify.py"
GRADIENT = np.add.outer(np.arange(0, 240, 15), np.arange(12)).astype(np.uint8)


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("classify", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sixteen():
    samples = (GRADIENT.astype(np.uint32) * 257).astype("<u2")
    return Image.frombytes("I;16", samples.shape[::-1], samples.tobytes())


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(GRADIENT), {"exif": exif}


def clear(mode):
    alpha = Image.fromarray(GRADIENT)
    picture = Image.merge("LA", (alpha, alpha)).convert(mode)
    return picture


CASES = {
    "16.png": lambda: (sixteen(), {}),
    "16.tif": lambda: (sixteen(), {}),
    "16-clear.png": lambda: (sixteen(), {"transparency": int(GRADIENT[3, 4]) * 257}),
    "turned.png": turned,
    "turned.jpg": turned,
    "la.png": lambda: (clear("LA"), {}),
    "rgba.png": lambda: (clear("RGBA"), {}),
    "palette.png": lambda: (Image.fromarray(GRADIENT).convert("P"), {"transparency": 3}),
    "cmyk.jpg": lambda: (Image.fromarray(GRADIENT).convert("CMYK"), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_example_reads_what_radapter_reads(example, tmp_path, name):
    picture, options = CASES[name]()
    picture.save(tmp_path / name, **options)
    found = np.asarray(example.as_rgb(Image.open(tmp_path / name)))
    assert np.array_equal(found, np.asarray(read_picture(tmp_path / name)))


def test_the_example_refuses_what_radapter_refuses(example, tmp_path):
    Image.fromarray(GRADIENT.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(SystemExit, match="no known white"):
        example.as_rgb(Image.open(tmp_path / "a.tif"))
