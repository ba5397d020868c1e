"""The built-in icons: one concept drawn by many designers, in five kinds.

A class is a concept; a kind is a way of drawing (line, solid, two-tone, colour, pixel); a family is
a designer, and belongs to one split in all kinds. Files hold the opacity of an icon (coloured ones
all of it), 64 x 64; ink, ground, size and place are drawn when a picture is read. See NOTICE.md for
licences.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from radapter.data.drawing import Drawing, Style, scene
from radapter.data.tar_index import Member

HERE = Path(__file__).parent
SIZE = 64
DRAWN = Style(SIZE, coloured=1.0, smallest=0.55)
"""What is drawn by chance: ink and ground, and a size from 55 % of the picture's side"""
SHOTS_SEED = "radapter-icons-shots-1"


@dataclass(frozen=True)
class Icon:
    """One picture of the set."""

    number: int
    name: str
    """SET:ICON, as Iconify has it"""
    label: int
    """The number of its class among all classes"""
    kind: str
    split: str

    @property
    def words(self) -> str:
        """Its own name in words."""
        return self.name.split(":")[1].replace("-", " ")


@functools.cache
def table() -> dict[str, Any]:
    """`package`, `sets`, `classes`, `pictures` and the `sha256` of their archive."""
    return json.loads((HERE / "icons.json").read_text(encoding="utf-8"))


@functools.cache
def classes() -> list[dict[str, Any]]:
    """Every class: its name, its half (`base`, `novel`, or `unseen` by the built-in model), and
    other names that its icons have."""
    return table()["classes"]


@functools.cache
def pictures() -> list[Icon]:
    """Every picture, in the order of their archive."""
    split = {name: facts["split"] for name, facts in table()["sets"].items()}
    return [
        Icon(number, name, label, kind, split[name.split(":")[0]])
        for number, (name, label, kind) in enumerate(table()["pictures"])
    ]


@functools.cache
def raw_pixels() -> dict[str, float]:
    """The accuracy on test pictures, by `measured`, of the class of the nearest training picture in
    lines, of the same classes, by grey pixels of 16 x 16: from `benchmarks/icon_power.py`."""
    return json.loads((HERE / "raw_pixels.json").read_text(encoding="utf-8"))


def measured(kinds: Sequence[str], classes: str) -> str:
    """What test pictures of these kinds and classes are called in `raw_pixels`."""
    return f"{'+'.join(kinds)}, {classes}"


def designer(icon: Icon) -> str:
    """Whose it is: sets by one author, or derived from one another, are of one designer."""
    return table()["sets"][icon.name.split(":")[0]]["family"]


def file_name(number: int) -> str:
    """What a picture is called in the archive."""
    return f"{number:05}.webp"


def place_in_draw(icon: Icon, seed: int) -> str:
    """What pictures of a class are sorted by: the first n are the n shots of that seed."""
    return hashlib.sha256(f"{SHOTS_SEED}/{seed}/{icon.name}".encode()).hexdigest()


def member(number: int) -> Member:
    """Where a picture lies."""
    return _index()[number]


@functools.cache
def _index() -> list[Member]:
    path = HERE / "pictures.zip"
    with zipfile.ZipFile(path) as archive:  # a local header is 30 bytes and the name
        return [
            Member(
                path, info.filename, info.header_offset + 30 + len(info.filename), info.file_size
            )
            for info in archive.infolist()
        ]


@functools.cache
def drawing(number: int) -> Drawing:
    """An icon before it is in a picture, 64 x 64; of those of one colour the opacity alone."""
    import numpy as np  # here, as recipes are checked without it

    picture = Image.open(io.BytesIO(member(number).read()))
    if pictures()[number].kind == "colour":
        layers = np.asarray(picture.convert("RGBA"))
        return Drawing(layers[..., 3], layers[..., :3])
    return Drawing(np.asarray(picture.getchannel(0)))


def drawn(number: int, chance: random.Random | None = None) -> Image.Image:
    """An icon in colours, size and place that `chance` draws; None: black on white, whole."""
    style = Style(SIZE) if chance is None else DRAWN
    return scene([drawing(number)], chance or random.Random(0), style).picture
