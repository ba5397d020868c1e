"""What pictures are read from: small objects that go to worker processes.

`read(i)` is the RGB picture at an index (BrokenInput names it if it cannot be read), `stamp(i)` is
of what it is read from, and `digest(i)` the sha256 of its bytes, where it has some of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from radapter.data.pixels import Reading, read_picture
from radapter.data.tar_index import Member

Stamp = tuple[int, int, int]
"""Size in bytes, and times in ns of the last change of the content and of the file: what is cheap
to know of a picture. A program can set the first time back, but not the second."""


def file_stamp(path: Path) -> Stamp:
    """Of a file that holds one picture; (-1, -1, -1) if it is not there."""
    try:
        facts = os.stat(path)
    except OSError:
        return -1, -1, -1
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def member_stamp(member: Member) -> Stamp:
    """Its own size, and when the shard was last changed."""
    return member.size, *file_stamp(member.shard)[1:]


@dataclass(frozen=True)
class Files:
    """Pictures that are files of their own."""

    root: Path
    names: Sequence[str]
    """Relative to the root, or absolute"""
    reading: Reading

    def read(self, index: int) -> Image.Image:
        return read_picture(self.root / self.names[index], reading=self.reading)

    def stamp(self, index: int) -> Stamp:
        return file_stamp(self.root / self.names[index])

    def digest(self, index: int) -> str | None:
        try:
            with open(self.root / self.names[index], "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None


@dataclass(frozen=True)
class ShardMembers:
    """Pictures in tar files."""

    members: Sequence[Member]
    reading: Reading

    def read(self, index: int) -> Image.Image:
        return self.members[index].picture(self.reading)

    def stamp(self, index: int) -> Stamp:
        return member_stamp(self.members[index])

    def digest(self, index: int) -> str:
        return hashlib.sha256(self.members[index].read()).hexdigest()
