"""The one place where a file becomes an RGB picture, and where it is said which files are pictures.

A file holds more than its 8-bit samples: how the camera was held, what shines through, more than
8 bits. `Reading` says what is done about it; results name it, as a score depends on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image, ImageOps

from radapter.errors import BrokenInput

# What Pillow tells developers about odd files. A picture is read, or BrokenInput names it.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

NO_PICTURES = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
"""Of what Pillow knows: forms that need another program, hold data, or of which it reads the size
alone."""
UNREADABLE = "Picture cannot be read: "
NO_VIDEO = "Video cannot be read: "
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and a value of the second"""
LONGEST = 200
"""How many times as long as wide a picture may be. Resizing the shorter side first, as CLIP does,
would make gigabytes of a line of pixels."""

Orientation = Literal["apply", "ignore"]
"""Whether a photo is turned as its EXIF orientation says."""
Transparency = Literal["white", "black", "discard"]
"""What shows through a transparent picture. `discard`: the colours that lie hidden in the file."""

Image.init()
IMAGE_EXTENSIONS = tuple(
    sorted(
        ending
        for ending, form in Image.registered_extensions().items()
        if form in Image.OPEN and form not in NO_PICTURES
    )
)
"""Every ending of pictures that Pillow opens, in lower case, such as ".jpg"."""


@dataclass(frozen=True)
class Reading:
    """What is done with what a file says beside its colours."""

    orientation: Orientation = "apply"
    transparency: Transparency = "white"

    def facts(self) -> dict[str, str]:
        """What a result says of it."""
        return {"orientation": self.orientation, "transparency": self.transparency}


USUAL = Reading()
"""How one's own pictures are read."""
PUBLISHED = Reading("ignore", "discard")
"""How the pictures of published sets are read by the code that published scores come from."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is a program's and not the user's: hidden ones, and
    what archives from macOS and network disks bring along."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")


def is_picture(name: str) -> bool:
    """Whether a file of that name is a picture of a set."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not is_hidden(Path(name).name)


def without_prefix(messages: Iterable[str]) -> list[str]:
    """The name and the reason alone, of messages that a picture or video cannot be read."""
    return [message.removeprefix(UNREADABLE).removeprefix(NO_VIDEO) for message in messages]


def read_picture(
    file: Path | IO[bytes], name: object = None, reading: Reading = USUAL
) -> Image.Image:
    """The RGB picture in a file: of several frames the first, of 16 bits the upper 8.

    Args:
        name: what errors call a file that has no path.

    Raises:
        BrokenInput: it cannot be read, or has no 8-bit form that is sure; the message names it.
    """
    try:
        with Image.open(file) as opened:
            _check_shape(opened)
            if reading.orientation == "apply":
                ImageOps.exif_transpose(opened, in_place=True)
            return to_rgb(opened, reading.transparency)
    except Image.UnidentifiedImageError:  # its message names a Python object
        reason = "it is not in a picture format that is known here"
    except (OSError, SyntaxError, ValueError, OverflowError, Image.DecompressionBombError) as error:
        reason = str(error)
    raise BrokenInput(f"{UNREADABLE}{name or file}: {reason}") from None


def to_rgb(picture: Image.Image, transparency: Transparency = "white") -> Image.Image:
    """A Pillow image of any mode as RGB.

    Raises:
        ValueError: the samples have no known white, as floats and 32-bit integers.
    """
    if picture.mode.startswith("I;16") or (
        picture.mode == "I" and picture.format in ("PNG", "PPM")  # how older Pillows read 16 bits
    ):
        picture = _eight_bits(picture)
    elif picture.mode in ("I", "F"):
        kind = "floats" if picture.mode == "F" else "32-bit integers"
        raise ValueError(f"its samples are {kind}, which have no known white: save it with 8 bits")
    if transparency == "discard" or not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":  # has no direct way to RGBA
        picture = picture.convert("LA")
    ground = Image.new("RGBA", picture.size, transparency)
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey, scaled: Pillow's own conversion clips at 255."""
    import numpy as np  # here, as recipes are checked without it

    samples = np.asarray(picture).astype(np.uint32)
    tags = getattr(picture, "tag_v2", {})  # of a TIFF, which may have 12 bits or a white of 0
    white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        samples = white - samples
    grey = Image.fromarray(((samples * 255 + white // 2) // white).astype(np.uint8))
    clear = picture.info.get("transparency")
    if isinstance(clear, int):  # PNG: the one value that is transparent
        grey.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
    return grey


def _check_shape(picture: Image.Image) -> None:
    longer, shorter = max(picture.size), min(picture.size)
    if longer > LONGEST * shorter:
        raise ValueError(
            f"it is {picture.width} x {picture.height} pixels, more than {LONGEST} times as long "
            "as wide"
        )
