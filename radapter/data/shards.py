"""WebDataset shards on local disks, read at random through an index of their members.

Only listed extensions are read and nothing is decoded but pictures, text and numbers: a shard that
holds a pickle, and a source that would run a program (`pipe:`), are refused.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from radapter.data.dataset import (
    Dataset,
    MissingData,
    Stamp,
    file_stamp,
)
from radapter.data.picture_files import read_json
from radapter.data.pixels import IMAGE_EXTENSIONS, USUAL, Reading, read_picture, reading_of
from radapter.errors import BrokenInput, UsageError
from radapter.recipe_data import ClipBenchmarkData, Data, ShardsData, located

SIZES = "sizes.json"
"""WebDataset's name for the numbers of samples in the shards of a folder"""
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

    def stamp(self) -> Stamp:
        """Its own size, and when the shard was last changed."""
        return self.size, *file_stamp(self.shard)[1:]

    def picture(self, reading: Reading = USUAL) -> Image.Image:
        return read_picture(io.BytesIO(self.read()), f"{self.shard}: {self.name}", reading)


def index_shard(path: Path) -> dict[str, dict[str, Member]]:
    """{sample key: {extension: member}} of a shard, in its order.

    Raises:
        BrokenInput: the file is missing, no tar, cut short, or holds a pickle.
    """
    samples: dict[str, dict[str, Member]] = {}
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as shard:
            for info in shard:
                if not info.isfile():
                    continue
                stem, dot, extension = Path(info.name).name.partition(".")
                extension = (dot + extension).lower()
                if extension.endswith(PICKLES):
                    raise BrokenInput(
                        f"{path} holds a pickle ({info.name}), which can run code when read. "
                        "Only pictures, .txt, .cls and .json are taken."
                    )
                if info.offset_data + info.size > size:
                    raise BrokenInput(f"{path} is cut short in {info.name}.")
                key = (Path(info.name).parent / stem).as_posix()
                member = Member(path, info.name, info.offset_data, info.size)
                samples.setdefault(key, {})[extension] = member
    except FileNotFoundError:
        raise BrokenInput(f"No such shard: {path}.") from None
    except (OSError, tarfile.TarError) as error:
        raise BrokenInput(f"{path} is no whole tar file: {error}") from None
    return samples


def open_shards(settings: ShardsData) -> Dataset:
    """Samples of all shards: a picture with `.txt` (captions, one a line) or `.cls` (a number).

    Raises:
        BrokenInput: a shard is missing or damaged, or has another number of samples than it should.
        UsageError: the shards are not local, or classes have no names.
    """
    from webdataset.shardlists import expand_urls

    if settings.shards.startswith("pipe:") or "://" in settings.shards:
        raise UsageError(f"shards: only local tar files are read, found '{settings.shards}'")
    paths = [located(settings, url) for url in expand_urls(settings.shards)]
    dataset = _open(settings, f"shards {settings.shards}", paths, settings.class_names or [])
    if settings.samples not in (None, len(dataset)):
        raise BrokenInput(
            f"{dataset.source} have {len(dataset):,} samples, and data.samples says "
            f"{settings.samples:,}: fetch what is cut short or missing, or mend that number."
        )
    return dataset


def open_clip_benchmark(settings: ClipBenchmarkData) -> Dataset:
    """The shards of a split in clip-benchmark's layout, its class names from the file beside them.

    Raises:
        BrokenInput: the split, its nshards.txt, a shard or the class names are missing, or its
            templates are damaged.
        UsageError: the set has several classes a picture.
    """
    root = located(settings, settings.root)
    split = root / settings.dataset_split
    try:
        number = int((split / "nshards.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        have = ", ".join(sorted(p.parent.name for p in root.glob("*/nshards.txt"))) or "none"
        raise BrokenInput(
            f"{split} has no nshards.txt with the number of its shards. Splits that are there "
            f"(data.dataset_split): {have}."
        ) from None
    kind = root / "dataset_type.txt"
    if kind.is_file() and kind.read_text(encoding="utf-8").strip().lower() == "multilabel":
        raise UsageError(f"{root} has several classes a picture, which is no task of ours.")
    if settings.task == "classification":
        settings.own_prompts()  # damaged ones are named before any work is done
    names = root / "classnames.txt"
    class_names: list[str] = []
    if settings.task == "classification" and names.is_file():
        class_names = [
            line.strip() for line in names.read_text(encoding="utf-8").rstrip().splitlines()
        ]
    paths = [split / f"{i}.tar" for i in range(number)]
    return _open(settings, f"clip-benchmark {split}", paths, class_names, str(names))


def _open(
    settings: Data, source: str, paths: list[Path], names: list[str], where: str = "class_names"
) -> Dataset:
    pictures: list[Member] = []
    keys: list[str] = []
    captions: list[list[str]] = []
    labels: list[int] = []
    numbers: list[int] = []
    # Shards of one name may lie in several folders; where they do not, the name alone is enough.
    top = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    sizes: dict[Path, dict[str, Any]] = {}
    wrong: list[str] = []
    for number, path in enumerate(paths):
        shard = path.absolute().relative_to(top).as_posix()
        samples = index_shard(path)
        if path.parent not in sizes:
            sizes[path.parent] = _sizes(path.parent / SIZES)
        size = sizes[path.parent].get(path.name, len(samples))
        if str(size) != str(len(samples)):  # some write the numbers as texts
            wrong.append(f"{path} has {len(samples):,} samples, not {size}")
        for key, members in samples.items():
            found = [e for e in members if e in IMAGE_EXTENSIONS]
            if len(found) != 1:
                raise BrokenInput(f"{path}: sample {key} has {len(found)} pictures, expected one.")
            pictures.append(members[found[0]])
            keys.append(f"{shard}/{key}")
            numbers.append(number)
            if ".txt" in members:
                lines = members[".txt"].read().decode("utf-8", "replace").splitlines()
                captions.append([line.strip() for line in lines if line.strip()])
            if ".cls" in members:
                text = members[".cls"].read().decode("ascii", "replace").strip()
                if not text.isdigit():
                    raise BrokenInput(
                        f"{path}: {members['.cls'].name} is no class number: {text!r}"
                    )
                labels.append(int(text))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BrokenInput(
            f"{'; '.join(wrong[:5])}{more}, by the {SIZES} beside: fetch what is cut short again, "
            "or mend that file."
        )
    for kind, values in (("captions (.txt)", captions), ("a class (.cls)", labels)):
        if values and len(values) != len(keys):
            raise BrokenInput(f"{source}: only {len(values)} of {len(keys)} have {kind}.")
    if settings.task == "classification" and labels:
        if not names and isinstance(settings, ClipBenchmarkData):
            raise BrokenInput(f"No such file: {where}. It names the numbers in .cls, one a line.")
        if not names:
            raise UsageError("data.class_names is missing: it names the numbers in .cls")
        if max(labels) >= len(names):
            raise BrokenInput(f"Class {max(labels)} has no name: {where} has {len(names)}.")
    return Dataset(
        source=source,
        keys=keys,
        read=functools.partial(_read, pictures, reading_of(settings)),
        labels=labels,
        class_names=names,
        captions=captions,
        groups=list(range(len(keys))),
        shards=numbers,
        stamp=functools.partial(_stamp, pictures),
    )


def _sizes(path: Path) -> dict[str, Any]:
    """Samples by the name of a shard; of none if there is no such file."""
    try:
        return read_json(path)
    except MissingData:
        return {}


def _read(pictures: list[Member], reading: Reading, index: int) -> Image.Image:
    return pictures[index].picture(reading)


def _stamp(pictures: list[Member], index: int) -> Stamp:
    return pictures[index].stamp()


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
