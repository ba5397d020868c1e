"""Regions of pictures with their names, to train on masked crops: a table with a row for each, or
the built-in scenes.

    {"image": "1.jpg", "name": "dog", "mask": "masks/1.png"}
    {"image": "1.jpg", "name": "cat", "mask": "masks/1.png", "value": 3}
    {"image": "2.jpg", "name": "dog", "box": [10, 20, 110, 80]}

A pair is the region in the middle of a square, all around it painted over, as OVSeg (Liang et al.,
CVPR 2023) and the segmentation of R-Adapter have it, and as `dense: {by: regions}` scores it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from PIL import Image
from pydantic import Field, model_validator

from radapter.data.class_names import class_name, gathered, joined_notes
from radapter.data.dataset import Dataset, check_broken
from radapter.data.masked import masked
from radapter.data.pixels import USUAL, Reading
from radapter.data.settings import HeldOut, MissingData, located
from radapter.data.sources.masks import numbers_in
from radapter.data.sources.scenes import Scenes, ScenesData
from radapter.data.stores import Files, Stamp, file_stamp
from radapter.data.table_rows import Form, Row, read_rows
from radapter.errors import BrokenInput

if TYPE_CHECKING:
    import numpy as np

Byte = Annotated[int, Field(ge=0, le=255)]
Box = tuple[float, float, float, float]


class RegionsData(HeldOut):
    """Regions of pictures, by masks or boxes, with a name each: a table, or built-in scenes."""

    source: Literal["regions"]
    named_by = ("path", "root", "scenes")
    path: str | None = Field(default=None, examples=["regions.jsonl"])
    """The table: JSON lines, a JSON list of records, CSV or TSV. A row has `image`, `name`, and
    `mask` or `box`. A mask is a PNG of the picture's size, and of it the region is all that is not
    0, or with `value` what has this number. Regions of one picture lie in several rows."""
    root: str = ""
    """The folder that the paths of pictures and masks start from. Empty: the table's own folder."""
    boxes: Literal["corners", "sizes"] = "corners"
    """What the four numbers of a box are, in pixels. `corners`: left, top, right, bottom. `sizes`:
    left, top, width, height, as COCO has them."""
    scenes: ScenesData | None = None
    """In the place of a table: the built-in scenes whose drawings are the regions. Their `split`
    has to be `train`."""
    paint: tuple[Byte, Byte, Byte] = (123, 117, 104)
    """What stands around a region: red, green and blue. By default the mean that OpenAI's CLIP
    subtracts; scoring with regions takes the model's own."""
    broken_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows without a picture, a name or a region are skipped and named; one more is an
    error."""
    task: Literal["classification"] = "classification"

    @model_validator(mode="after")
    def _one_of_both(self) -> RegionsData:
        if (self.path is None) == (self.scenes is None):
            raise ValueError("give path, a table of regions, or scenes, and not both")
        if self.scenes is not None and self.scenes.split != "train":
            raise ValueError(
                "scenes of the split test are for scoring: set data.scenes.split=train"
            )
        return self

    def reading(self) -> Reading:
        """Pictures are not turned, as masks and boxes are not."""
        return Reading(self.orientation or "ignore", self.transparency or USUAL.transparency)

    def reading_facts(self) -> dict[str, str]:
        """None of scenes."""
        return {} if self.scenes is not None else super().reading_facts()

    def in_words(self) -> str:
        what = self.scenes.in_words() if self.scenes is not None else Path(self.path or "").name
        return f"regions of {what}" if self.scenes is not None else f"regions in {what}"

    def open(self) -> Dataset:
        """Every region, in the order of the rows; names are the classes. Regions of one picture are
        held out together.

        Raises:
            MissingData: there is no such table.
            BrokenInput: it is no table, or more rows are broken than `broken_rows`.
        """
        if self.scenes is not None:
            return self._of_scenes(self.scenes)
        path = located(self, self.path or "")
        if not path.is_file():
            raise MissingData(f"No such table: {path}. Correct data.path, or give --data-root.")
        root = located(self, self.root) if self.root else path.parent
        regions, broken = self._listed(path)
        check_broken(broken, self.broken_rows, "data.broken_rows")
        spelled = sorted({region.name for region in regions})
        names, numbers = gathered([class_name(name) for name in spelled])
        number = dict(zip(spelled, numbers, strict=True))
        images = list(dict.fromkeys(region.image for region in regions))
        place = {image: i for i, image in enumerate(images)}
        cut = Regions(Files(root, [r.image for r in regions], self.reading()), regions, self.paint)
        return Dataset(
            source=self.in_words(),
            keys=[region.key for region in regions],
            read=cut.read,
            labels=[number[region.name] for region in regions],
            class_names=names,
            groups=[place[region.image] for region in regions],
            group_names=[region.image for region in regions],
            stamp=cut.stamp,
            protocol=self._painted(),
            left_out={"broken row": broken} if broken else {},
            notes=joined_notes(spelled, numbers),
        )

    def _painted(self) -> dict[str, str]:
        return {"around regions": "red {}, green {}, blue {}".format(*self.paint)}

    def _listed(self, path: Path) -> tuple[list[Region], list[str]]:
        """The regions of a table, and messages about broken rows."""
        regions: list[Region] = []
        broken: list[str] = []
        for row in read_rows(path, Form("image"), ["image", "name"]):
            try:
                regions.append(region_of(row, path, self.boxes))
            except BrokenInput as error:
                broken.append(str(error))
        return regions, broken

    def _of_scenes(self, scenes: ScenesData) -> Dataset:
        names, drawn = scenes.parts()
        places = [(i, k) for i in range(scenes.pictures) for k in range(len(drawn.labels(i)))]
        cut = OfScenes(drawn, places, self.paint)
        pictures = [f"scene {i:05}" for i, _ in places]
        return Dataset(
            source=self.in_words(),
            keys=[f"{scenes.of}/{scenes.ground}/{i:05}/{k}" for i, k in places],
            read=cut.read,
            labels=[drawn.labels(i)[k] for i, k in places],
            class_names=names,
            groups=[i for i, _ in places],
            group_names=pictures,
            stamp=cut.stamp,
            protocol={"scenes": scenes.style()} | self._painted(),
        )


@dataclass(frozen=True)
class Region:
    """A row of the table."""

    image: str
    name: str
    key: str
    """What it is called: the picture with the mask or the box"""
    mask: str | None = None
    value: int | None = None
    """The number that the region has in the mask; None: all but 0"""
    box: Box | None = None
    """Left, top, right, bottom"""


def region_of(row: Row, path: Path, boxes: str) -> Region:
    """The region of a row.

    Raises:
        BrokenInput: the row is broken, or is none of a region; the message has its line.
    """
    if row.broken:
        raise BrokenInput(row.broken)
    where, cells = f"{path}:{row.line}", row.cells
    image, name = (str(cells.get(key) or "").strip() for key in ("image", "name"))
    for key, cell in (("image", image), ("name", name)):
        if not cell:
            raise BrokenInput(f"{where}: {key} is empty.")
    mask, box = (cells.get(key) or None for key in ("mask", "box"))
    if (mask is None) == (box is None):
        which = "neither mask nor box" if mask is None else "both mask and box"
        raise BrokenInput(f"{where}: {which}. A row has one of them.")
    if mask is not None:
        value = cells.get("value")
        if value in (None, ""):
            return Region(image, name, f"{image}, {mask}", mask=str(mask))
        if not str(value).isdecimal():
            raise BrokenInput(f"{where}: value has to be a number from 0, found '{value}'.")
        return Region(image, name, f"{image}, {mask}: {value}", mask=str(mask), value=int(value))
    numbers = _four(box)
    if numbers is None:
        raise BrokenInput(f"{where}: box has to be a list of four numbers, found '{box}'.")
    left, top, right, bottom = numbers
    if boxes == "sizes":
        right, bottom = left + right, top + bottom
    if not (left < right and top < bottom):
        raise BrokenInput(
            f"{where}: box {list(numbers)} has no pixel. data.boxes is {boxes}: see there."
        )
    said = ", ".join(f"{number:g}" for number in (left, top, right, bottom))
    return Region(image, name, f"{image}, [{said}]", box=(left, top, right, bottom))


def _four(cell: Any) -> Box | None:
    """The four numbers of a cell, a list or its JSON; None if they are something else."""
    try:
        found = json.loads(cell) if isinstance(cell, str) else cell
        numbers = [float(number) for number in found]
    except (TypeError, ValueError):
        return None
    if len(numbers) != 4 or any(isinstance(number, bool | str) for number in found):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


@dataclass(frozen=True)
class Regions:
    """Regions of pictures that are files, by number."""

    pictures: Files
    """The picture of each"""
    regions: list[Region]
    paint: tuple[int, int, int]

    def read(self, index: int) -> Image.Image:
        """The region in the middle of a square.

        Raises:
            BrokenInput: picture or mask cannot be read; the mask is of another size, or has no
                pixel of the region; the box is not inside the picture.
        """
        picture = self.pictures.read(index)
        return masked(picture, self._region(self.regions[index], picture), self.paint)

    def _region(self, of: Region, picture: Image.Image) -> np.ndarray:
        import numpy as np  # here, as recipes are checked without it

        path = self.pictures.root / of.image
        if of.box is not None:
            left, top, right, bottom = (round(number) for number in of.box)
            if left < 0 or top < 0 or right > picture.width or bottom > picture.height:
                raise BrokenInput(
                    f"The box of {of.key} is not inside {path}, which has {picture.width} x "
                    f"{picture.height} pixels."
                )
            region = np.zeros((picture.height, picture.width), dtype=bool)
            region[top : max(bottom, top + 1), left : max(right, left + 1)] = True
            return region
        mask = self.pictures.root / str(of.mask)
        found = numbers_in(mask)
        if found.shape != (picture.height, picture.width):
            raise BrokenInput(
                f"{mask} has {found.shape[1]} x {found.shape[0]} pixels, and {path} "
                f"{picture.width} x {picture.height}: a mask is of its picture's size."
            )
        region = found != 0 if of.value is None else found == of.value
        if not region.any():
            what = "nothing but 0" if of.value is None else f"no pixel of the value {of.value}"
            raise BrokenInput(f"{mask} has {what}.")
        return region

    def stamp(self, index: int) -> Stamp:
        """Of picture and mask together."""
        stamp, mask = self.pictures.stamp(index), self.regions[index].mask
        if mask is None:
            return stamp
        other = file_stamp(self.pictures.root / mask)
        return stamp[0] + other[0], max(stamp[1], other[1]), max(stamp[2], other[2])


@dataclass(frozen=True)
class OfScenes:
    """The drawings of scenes, by number."""

    scenes: Scenes
    places: list[tuple[int, int]]
    """(scene, which of its drawings) of each"""
    paint: tuple[int, int, int]

    def read(self, index: int) -> Image.Image:
        number, drawing = self.places[index]
        picture, regions = self.scenes.cut(number)
        return masked(picture, regions[drawing], self.paint)

    def stamp(self, index: int) -> Stamp:
        return self.scenes.stamp(self.places[index][0])
