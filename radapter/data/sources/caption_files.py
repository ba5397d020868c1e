"""Pictures with a text file of captions beside each: 0001.jpg and 0001.txt, in any folders.

It is what img2dataset writes as `files`, and what trainers of image generators read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from radapter.data.dataset import Dataset
from radapter.data.left_out import merged
from radapter.data.listing import list_pictures
from radapter.data.settings import HeldOut, MissingData, located
from radapter.data.stores import Files
from radapter.errors import BrokenInput

ENDINGS = (".txt", ".caption")


class CaptionFilesData(HeldOut):
    """Pictures with a text file of captions beside each (1.jpg and 1.txt), in any folders below the
    root, as img2dataset writes them. Every line is a caption."""

    source: Literal["caption-files"]
    named_by = ("root",)
    root: Annotated[str, Field(examples=["my-pictures"])]
    """The folder of the pictures."""
    caption_ending: Literal[".txt", ".caption"] = ".txt"
    """The ending of the text files."""
    task: Literal["captions"] = "captions"

    def open(self) -> Dataset:
        """All pictures below the root that have a caption, each with the lines of its text file.

        Pictures without a text file, or with an empty one, are left out.
        """
        root = located(self, self.root)
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
        found = list_pictures(root)
        texts = {
            name: caption_of((root / name).with_suffix(self.caption_ending))
            for name in found.pictures
        }
        keys = [name for name in found.pictures if texts[name]]
        if not keys:
            raise BrokenInput(
                f"{root} has no pictures with a {self.caption_ending} of captions beside them."
            )
        # Text files are the captions; other files of a picture, as img2dataset's .json, are no
        # pictures that were missed.
        stems = {name.rsplit(".", 1)[0] for name in found.pictures}
        beside = [n for n in found.left_out.get("ending", []) if n.rsplit(".", 1)[0] not in stems]
        without = [name for name in found.pictures if not texts[name]]
        files = Files(root, keys, self.reading())
        return Dataset(
            source=f"caption files in {root}",
            keys=keys,
            read=files.read,
            captions=[texts[name] for name in keys],
            groups=list(range(len(keys))),
            stamp=files.stamp,
            digest=files.digest,
            left_out=merged(
                {**found.left_out, "ending": beside, "without caption": without},
            ),
        )


def caption_of(path: Path) -> list[str]:
    """The captions in a text file, one a line; none if there is no such file.

    Raises:
        BrokenInput: it is no UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path} is not a readable text file: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
