"""What lies where in a tar file of samples, so that any of them can be read without the others.

A member belongs to the sample that its name says up to the first dot, as WebDataset has it; what
follows is its extension. Only listed extensions are read and nothing is decoded but pictures, text
and numbers: a shard that holds a pickle is refused.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from PIL import Image

from radapter.data.pixels import USUAL, Reading, is_hidden, read_picture
from radapter.errors import BrokenInput

PICKLES = (".pickle", ".pkl", ".pth", ".pt", ".pyd")


@dataclass(frozen=True)
class Member:
    """Where one file of a sample lies: `size` bytes at `offset` of the shard."""

    shard: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        file = _opened(self.shard)
        file.seek(self.offset)
        return file.read(self.size)

    def picture(self, reading: Reading = USUAL) -> Image.Image:
        return read_picture(io.BytesIO(self.read()), f"{self.shard}: {self.name}", reading)


@dataclass
class Sample:
    """The members of one sample."""

    key: str
    """Its name; where a shard has several of that name, from the second on with `#2`, `#3` ..."""
    members: dict[str, Member] = field(default_factory=dict)
    """By extension in lower case, such as ".jpg"."""


@dataclass
class Index:
    """A shard's samples in its order."""

    samples: list[Sample] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Names of members that are a program's and belong to no sample"""


def index_shard(path: Path) -> Index:
    """The samples of a shard. Two parts that were appended to one file may number theirs alike: a
    member that a sample has already begins the next sample of that name.

    Raises:
        BrokenInput: the file is missing, compressed, no tar, cut short, or holds a pickle; or two
            samples have one name and it cannot be told which of them a member belongs to.
    """
    index = Index()
    newest: dict[str, Sample] = {}
    times: Counter[str] = Counter()  # how many samples have a name
    apart: dict[str, str] = {}  # key -> member that came after other samples
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as shard:
            for info in shard:
                if not info.isfile():
                    continue
                place = Path(info.name)
                if any(is_hidden(part) for part in place.parts):
                    index.hidden.append(info.name)
                    continue
                stem, dot, extension = place.name.partition(".")
                extension = (dot + extension).lower()
                if extension.endswith(PICKLES):
                    raise BrokenInput(
                        f"{path} holds a pickle ({info.name}), which can run code when read. "
                        "Only pictures, .txt, .cls and .json are taken."
                    )
                if info.offset_data + info.size > size:
                    raise BrokenInput(f"{path} is cut short in {info.name}: download it again.")
                key = (place.parent / stem).as_posix()
                sample = newest.get(key)
                if sample is None or extension in sample.members:
                    times[key] += 1
                    sample = Sample(key if times[key] == 1 else f"{key}#{times[key]}")
                    newest[key] = sample
                    index.samples.append(sample)
                elif sample is not index.samples[-1]:
                    apart[key] = info.name
                sample.members[extension] = Member(path, info.name, info.offset_data, info.size)
            _check_end(path, shard.offset)
    except FileNotFoundError:
        raise BrokenInput(f"No such shard: {path}.") from None
    except (OSError, tarfile.TarError) as error:
        if _is_gzip(path):
            reason = "is compressed, and shards are read at random: unpack it with gunzip."
        else:
            reason = f"is not a complete tar file: {error}"
        raise BrokenInput(f"{path} {reason}") from None
    repeated = [key for key, number in times.items() if number > 1]
    if repeated and apart:
        key, name = next(iter(apart.items()))
        raise BrokenInput(
            f"{path} has several samples of one name, such as {min(repeated)}, and {name} "
            f"does not follow the sample {key}: it is unclear to which of them it "
            "belongs. Write the shard again with a name of its own for each sample."
        )
    return index


def _is_gzip(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _check_end(path: Path, offset: int) -> None:
    """A whole tar file ends with blocks of zeros; one that was cut between two members does not,
    and one behind which another was written goes on."""
    with open(path, "rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise BrokenInput(
                f"{path} is cut short: it has no end of archive after its last member. "
                "Download or write it again."
            )
        while rest := file.read(1 << 20):
            if rest.strip(b"\0"):
                raise BrokenInput(
                    f"{path} goes on after its end-of-archive marker, as two concatenated "
                    "tar files do: split it into two shards."
                )


_files = threading.local()


def _opened(path: Path) -> IO[bytes]:
    """One open file a shard and thread; a forked worker must not share its parent's position."""
    opened = getattr(_files, "opened", {})
    if getattr(_files, "process", None) != os.getpid():
        opened = {}
    if path not in opened:
        opened[path] = open(path, "rb")  # noqa: SIM115 (kept open: reads go back and forth)
    _files.opened, _files.process = opened, os.getpid()
    return opened[path]
