"""GeneCIS (Vaze et al., 2023): a word or two says what counts; each edit has a gallery of its own.

    genecis/{focus,change}_{attribute,object}.json
    VG_100K_all/2414890.jpg        the attribute tasks: Visual Genome 1.2, cut to one thing
    val2017/000000189213.jpg       the object tasks: COCO

As published: an edit has a reference, a target and some others (14 in the object tasks), and the
target is looked for among itself and these. A thing of Visual Genome is cut out with a margin: its
box starts 0.7 of its width and height further left and up, and is 1.7 times as wide and high; black
bars make it square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from radapter.data.captions import find_pictures
from radapter.data.dataset import Dataset
from radapter.data.edits import Edit
from radapter.data.json_files import read_list
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, first_folder
from radapter.data.stores import Files, Stamp
from radapter.errors import BrokenInput

USUAL = ("GeneCIS", "genecis")
MEASURED = ("r1", "r2", "r3")
MARGIN = 0.7
Box = tuple[float, float, float, float]
"""Left, top, width, height"""


class GenecisData(Data):
    """GeneCIS: focus on, or change, an attribute or an object of a photo."""

    convention = PUBLISHED
    source: Literal["genecis"]
    named_by = ("root", "condition")
    root: str | None = None
    """The folder that has `genecis`, `VG_100K_all` and `val2017`. `null`: the one under the data
    root that has one of the usual names."""
    condition: Literal["focus_attribute", "change_attribute", "focus_object", "change_object"]
    """Which of the four tasks is taken."""
    task: Literal["edits"] = "edits"
    no_training = "GeneCIS is for testing only: do not train on it"

    def in_words(self) -> str:
        return f"GeneCIS {self.condition}"

    def published_as(self) -> str:
        return f"genecis-{self.condition}"

    def held_out(self) -> None:
        """None: it is for testing only."""

    def open(self) -> Dataset:
        """Every picture that an edit of the task names, once.

        Raises:
            MissingData: it is not there.
            BrokenInput: a file is damaged.
        """
        root = first_folder(self, self.root, USUAL, "GeneCIS")
        path = root / "genecis" / f"{self.condition}.json"
        cut = self.condition.endswith("attribute")
        rows: dict[str, tuple[str, Box | None]] = {}
        places: dict[str, int] = {}
        edits = []
        for number, entry in enumerate(
            read_list(path, ("condition", "reference", "target", "gallery"))
        ):
            try:
                named = [entry["reference"], entry["target"], *entry["gallery"]]
                pictures = [_picture(own, cut) for own in named]
            except (KeyError, TypeError, ValueError) as error:
                raise BrokenInput(f"{path}: entry {number} is malformed: {error}.") from None
            for key, name, box in pictures:
                rows.setdefault(key, (name, box))
                places.setdefault(key, len(places))
            reference, target, *others = [places[key] for key, *_ in pictures]
            edits.append(
                Edit(
                    name=str(number),
                    reference=reference,
                    texts=(str(entry["condition"]),),
                    targets=(target,),
                    gallery=list(dict.fromkeys([target, *others])),
                    without_reference=False,
                )
            )
        folder = root / ("VG_100K_all" if cut else "val2017")
        found = find_pictures(folder, [name for name, _ in rows.values()], [""], self.broken_images)
        things = Things(Files(folder, found, self.reading()), [box for _, box in rows.values()])
        return Dataset(
            source=self.in_words(),
            keys=list(rows),
            read=things.read,
            groups=list(range(len(rows))),
            edits=edits,
            measured=list(MEASURED),
            protocol={"gallery": "of each edit its own: the target and the others of its entry"},
            stamp=things.stamp,
            digest=None if cut else things.files.digest,
        )


@dataclass(frozen=True)
class Things:
    """Photos, or things cut out of them."""

    files: Files
    boxes: list[Box | None]

    def read(self, index: int) -> Image.Image:
        picture, box = self.files.read(index), self.boxes[index]
        return picture if box is None else squared(picture.crop(with_margin(box, picture.size)))

    def stamp(self, index: int) -> Stamp:
        return self.files.stamp(index)


def with_margin(box: Box, size: tuple[int, int]) -> Box:
    """(left, top, right, bottom) of what is cut out, inside of a picture (width, height)."""
    left, top = max(0, box[0] - MARGIN * box[2]), max(0, box[1] - MARGIN * box[3])
    return (
        left,
        top,
        min(size[0], left + (1 + MARGIN) * box[2]),
        min(size[1], top + (1 + MARGIN) * box[3]),
    )


def squared(picture: Image.Image) -> Image.Image:
    """With black bars on both sides of the shorter one."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _picture(own: Any, cut: bool) -> tuple[str, str, Box | None]:
    """Key, file and box of what an entry names."""
    if not cut:
        name = f"{int(own['val_image_id']):012d}.jpg"
        return name, name, None
    left, top, width, height = map(float, own["instance_bbox"])
    name = f"{int(own['image_id'])}.jpg"
    return f"{name}@{left:g},{top:g},{width:g},{height:g}", name, (left, top, width, height)
