"""Pictures with the class of every pixel: Pascal VOC, Pascal-Context, ADE20K, or one's own.

    VOCdevkit/VOC2012/JPEGImages, SegmentationClass, ImageSets/Segmentation/val.txt
    VOCdevkit/VOC2010/JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext/val.txt
    ADEChallengeData2016/images/validation, annotations/validation, objectInfo150.txt

A mask is a PNG of class numbers: 0 is no class, n the n-th; 255 counts nowhere. In VOC what is 0 is
background; in ADE20K it counts nowhere, and so it does in Pascal-Context by the protocol `59`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image
from pydantic import model_validator

from radapter.data.dataset import BACKGROUND, IGNORED, Dataset
from radapter.data.listing import list_pictures
from radapter.data.pixels import PUBLISHED, Reading
from radapter.data.settings import Data, MissingData, first_folder, located
from radapter.data.sources.folder import read_list
from radapter.data.stores import Files
from radapter.errors import BrokenInput

if TYPE_CHECKING:
    import numpy as np

NOWHERE = 255
Published = Literal["voc", "pascal-context", "ade20k"]
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip
CONTEXT = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle",
    "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow",
    "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food", "grass", "ground",
    "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person", "plate", "platform",
    "potted plant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow", "sofa",
    "table", "track", "train", "tree", "truck", "tv monitor", "wall", "water", "window", "wood",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where a set has what."""

    roots: tuple[str, ...]
    pictures: str
    masks: str
    listed: str | None = None
    """A list of names without their ending"""


LAYOUTS: dict[Published, Layout] = {
    "voc": Layout(
        ("VOCdevkit/VOC2012", "VOC2012"), "JPEGImages", "SegmentationClass",
        "ImageSets/Segmentation/{}.txt",
    ),
    "pascal-context": Layout(
        ("VOCdevkit/VOC2010", "VOC2010"), "JPEGImages", "SegmentationClassContext",
        "ImageSets/SegmentationContext/{}.txt",
    ),
    "ade20k": Layout(("ADEChallengeData2016", "ADE20K"), "images/{}", "annotations/{}"),
}  # fmt: skip
SPLITS = {"train": "training", "val": "validation"}
"""What ADE20K calls them"""


class MasksData(Data):
    """Pictures with masks of class numbers: Pascal VOC, Pascal-Context, ADE20K, or your own."""

    source: Literal["masks"]
    named_by = ("dataset", "root", "pictures")
    dataset: Published | None = None
    """A published set in its folders, Pascal-Context in those of mmsegmentation. `null`: your
    own."""
    root: str | None = None
    """The folder of the set. `null`: the one of the usual name under the data root."""
    split: Literal["train", "val"] = "val"
    """Which pictures of a published set are taken."""
    protocol: Literal["59", "60"] = "59"
    """Of `pascal-context`: whether pixels of none of its 59 classes count nowhere, or are
    background (`60`)."""
    pictures: str | None = None
    """For data of your own: the folder of the pictures, below the root."""
    masks: str | None = None
    """For data of your own: the folder of the masks, which have the names of the pictures and end
    in .png."""
    names_file: str | None = None
    """For data of your own: a text file, below the root, with the name of a class in each line."""
    regions: str | None = None
    """A folder with regions to name, as `dense: {by: regions}` needs them: REGIONS/NAME OF THE
    PICTURE/*.png, of which all that is not 0 is the region."""
    task: Literal["segmentation"] = "segmentation"

    no_training = "Masks are for scoring alone: train on `source: regions`"

    @model_validator(mode="after")
    def _one_set(self) -> MasksData:
        own = (self.pictures, self.masks, self.names_file)
        if self.dataset is None and None in (self.root, *own):
            raise ValueError("give a dataset, or root, pictures, masks and names_file")
        if self.dataset is not None and any(own):
            raise ValueError(
                "a published dataset has its own folders: leave pictures, masks and names_file out"
            )
        return self

    def reading(self) -> Reading:
        """As published sets are, if it is one; own pictures are not turned, as masks are not."""
        return Reading("ignore", self.transparency or PUBLISHED.transparency)

    def in_words(self) -> str:
        return f"{self.dataset or Path(self.root or '').name}, {self.split}"

    def published_as(self) -> str | None:
        return self.dataset

    def held_out(self) -> None:
        """None: masks are not trained on."""

    def open(self) -> Dataset:
        """Pictures that have a mask, in the order of the list, else of their names.

        Raises:
            MissingData: a folder or file is not there.
            BrokenInput: a picture of the list has no mask, or none has one.
        """
        root, pictures, masks = self._folders()
        names = self._names(root)
        stems = self._listed(root, masks)
        found = {Path(name).stem: name for name in list_pictures(pictures, below=False).pictures}
        absent = [s for s in stems if s not in found or not (masks / f"{s}.png").is_file()]
        if absent or not stems:
            what = f"{absent[0]}: no such picture or mask" if absent else "no masks"
            raise BrokenInput(f"{self.in_words()}, {root}: {what}.")
        files = Files(pictures, [found[stem] for stem in stems], self.reading())
        zero = BACKGROUND if self._has_background() else IGNORED
        read = Masks([masks / f"{stem}.png" for stem in stems], len(names), zero)
        regions = located(self, self.regions) if self.regions is not None else None
        if regions is not None and not regions.is_dir():
            raise MissingData(f"No such folder: {regions}. Correct data.regions.")
        said = {"pixels of no class": "background" if zero == BACKGROUND else "count nowhere"}
        return Dataset(
            source=self.in_words(),
            keys=stems,
            read=files.read,
            class_names=list(names),
            groups=list(range(len(stems))),
            stamp=files.stamp,
            digest=files.digest,
            mask=read.mask,
            regions=None if regions is None else Regions([regions / s for s in stems]).of,
            protocol=said,
        )

    def _has_background(self) -> bool:
        if self.dataset == "pascal-context":
            return self.protocol == "60"
        return self.dataset != "ade20k"

    def _folders(self) -> tuple[Path, Path, Path]:
        """The root, and the folders of pictures and masks."""
        if self.dataset is None:
            root = located(self, self.root or "")
            inside = [str(self.pictures), str(self.masks)]
        else:
            layout = LAYOUTS[self.dataset]
            root = first_folder(self, self.root, layout.roots, self.dataset)
            inside = [of.format(SPLITS[self.split]) for of in (layout.pictures, layout.masks)]
        for name in inside:
            if not (root / name).is_dir():
                raise MissingData(f"{self.in_words()} has no folder {root / name}.")
        return root, root / inside[0], root / inside[1]

    def _listed(self, root: Path, masks: Path) -> list[str]:
        listed = LAYOUTS[self.dataset].listed if self.dataset else None
        if listed is None:
            return [Path(n).stem for n in list_pictures(masks, below=False).pictures]
        return list(read_list(root / listed.format(self.split)))

    def _names(self, root: Path) -> Sequence[str]:
        if self.dataset == "voc":
            return VOC
        if self.dataset == "pascal-context":
            return CONTEXT
        if self.dataset is None:
            return list(read_list(root / str(self.names_file)))
        rows = [line.split("\t") for line in read_list(root / "objectInfo150.txt")][1:]
        return [row[-1].replace(";", ",").split(",")[0].strip() for row in rows]


@dataclass(frozen=True)
class Masks:
    """Masks by number."""

    paths: list[Path]
    classes: int
    zero: int
    """What 0 in a file is: BACKGROUND or IGNORED"""

    def mask(self, index: int) -> np.ndarray:
        """The class of each pixel, see `Dataset.mask`.

        Raises:
            BrokenInput: it is no picture of class numbers, or has numbers of no class.
        """
        import numpy as np  # here, as recipes are checked without it

        path = self.paths[index]
        found = numbers_in(path)
        mask = found.astype(np.int64)
        mask[found == 0] = self.zero
        mask[found == NOWHERE] = IGNORED
        if mask.max(initial=0) > self.classes:
            raise BrokenInput(
                f"{path} has the class number {mask.max()}, and there are {self.classes} classes."
            )
        return mask


@dataclass(frozen=True)
class Regions:
    """Folders of regions by number."""

    folders: list[Path]

    def of(self, index: int) -> list[np.ndarray]:
        """The regions of a picture, bool [height, width] each, in the order of their names."""
        folder = self.folders[index]
        if not folder.is_dir():
            raise BrokenInput(f"No regions for {folder.name}: no such folder {folder}.")
        return [numbers_in(folder / name) > 0 for name in list_pictures(folder).pictures]


def numbers_in(path: Path) -> np.ndarray:
    """The numbers in a PNG, [height, width]; of a palette its places, not its colours."""
    import numpy as np  # here, as recipes are checked without it

    try:
        with Image.open(path) as opened:
            found = np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.UnidentifiedImageError) as error:
        raise BrokenInput(f"{path} cannot be read: {error}.") from None
    if found.ndim != 2:
        raise BrokenInput(f"{path} is in colours ({opened.mode}), and a mask has class numbers.")
    return found
