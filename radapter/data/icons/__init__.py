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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageStat

from radapter.data.tar_index import Member

HERE = Path(__file__).parent
SIZE = 64
SMALLEST = 0.55
"""Least side of a drawn icon, as a share of the picture's"""
CONTRAST = 90
"""Least difference in brightness of ink and ground, of 255"""
RESIZING = Image.Resampling.HAMMING
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
def layers(number: int) -> tuple[Image.Image | None, Image.Image]:
    """The colours of an icon (None: it is of one colour) and its opacity, 64 x 64."""
    picture = Image.open(io.BytesIO(member(number).read()))
    if pictures()[number].kind == "colour":
        return picture.convert("RGB"), picture.convert("RGBA").getchannel("A")
    return None, picture.getchannel(0)


def drawn(number: int, chance: random.Random | None = None) -> Image.Image:
    """An icon in colours, at a size and a place that `chance` draws; None: black on white, whole.

    The ground is far from the ink in brightness. Coloured icons keep their colours.
    """
    colours, opacity = layers(number)
    if chance is None:
        return _laid((255, 255, 255), colours or (0, 0, 0), opacity, (0, 0))
    if colours is None:
        ink = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        bright = _brightness(ink)
    else:
        ink, bright = (0, 0, 0), ImageStat.Stat(colours.convert("L"), opacity).mean[0]
    while True:
        ground = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        if abs(_brightness(ground) - bright) >= CONTRAST:
            break
    side = chance.randint(round(SMALLEST * SIZE), SIZE)
    place = (chance.randint(0, SIZE - side), chance.randint(0, SIZE - side))
    return _laid(
        ground,
        colours.resize((side, side), RESIZING) if colours else ink,
        opacity.resize((side, side), RESIZING),
        place,
    )


def _laid(
    ground: tuple[int, int, int],
    ink: Image.Image | tuple[int, int, int],
    opacity: Image.Image,
    place: tuple[int, int],
) -> Image.Image:
    picture = Image.new("RGB", (SIZE, SIZE), ground)
    box = (*place, place[0] + opacity.width, place[1] + opacity.height)
    picture.paste(ink, box, opacity)
    return picture


def _brightness(colour: tuple[int, int, int]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
