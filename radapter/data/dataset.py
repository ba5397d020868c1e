"""One form for every source: named pictures, read when asked for, with labels and captions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from radapter.data import holding_out
from radapter.data.left_out import FIRST, LeftOut, merged, summary_of
from radapter.data.pixels import Reading, read_picture, reading_of, without_prefix
from radapter.errors import BrokenInput, UsageError
from radapter.names import to_bytes
from radapter.recipe import Recipe
from radapter.recipe_data import (
    CaptionFilesData,
    ClipBenchmarkData,
    CocoCaptionsData,
    Data,
    EmojiData,
    FolderData,
    HeldOut,
    KarpathyData,
    ShardsData,
    TableData,
    located,
    root_of,
)
from radapter.recipe_sources import CoopData, HuggingFaceData, ImageNetData, ObjectNetData

Stamp = tuple[int, int, int]
"""Size in bytes, and times in ns of the last change of the content and of the file: what is cheap
to know of a picture. The last one cannot be set back as the other one can."""
T = TypeVar("T")


class MissingData(BrokenInput):
    """The data is not where it was looked for; it may be whole elsewhere."""


@dataclass(frozen=True)
class Dataset:
    """Pictures and what is known of them; every list has one entry a picture."""

    source: str
    keys: list[str]
    """Names of the pictures, for messages and results; each is one picture's alone"""
    read: Callable[[int], Image.Image]
    """The RGB picture at an index; BrokenInput names it if it cannot be read. It goes to
    worker processes, so it is a partial function and no lambda."""
    labels: list[int] = field(default_factory=list)
    """Class numbers; empty if there are no classes"""
    class_names: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    """Texts of each picture; empty if there are none"""
    groups: list[int] = field(default_factory=list)
    """Pictures with one number show the same thing: they are positives of each other's texts"""
    group_names: list[str] = field(default_factory=list)
    """What those things are called; empty if each picture is a thing of its own"""
    answers: list[list[int]] = field(default_factory=list)
    """What a classifier may answer: groups of classes, each scored by the best of its classes. A
    class in no group is never answered. Empty: every class, those of one name being one answer"""
    protocol: dict[str, str] = field(default_factory=dict)
    """Choices that a score depends on and that the field makes in several ways"""
    shards: list[int] = field(default_factory=list)
    """The number of the shard that each picture lies in; empty if they are files of their own"""
    stamp: Callable[[int], Stamp] | None = None
    """Of what the picture at an index is read from; None if that cannot be said"""
    digest: Callable[[int], str | None] | None = None
    """sha256 of the bytes that the picture at an index is read from, None if they are not there;
    as a whole None if pictures are no files of their own"""
    left_out: LeftOut = field(default_factory=dict)
    """Names of what the source passed over, by reason: see `radapter.data.left_out`"""
    notes: list[str] = field(default_factory=list)
    """What else should not go unsaid: a line each"""

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, indices: list[int]) -> Dataset:
        """The pictures at `indices`, in that order."""
        return dataclasses.replace(
            self,
            keys=[self.keys[i] for i in indices],
            read=functools.partial(_read_chosen, self.read, list(indices)),
            labels=[self.labels[i] for i in indices] if self.labels else [],
            captions=[self.captions[i] for i in indices] if self.captions else [],
            groups=[self.groups[i] for i in indices],
            group_names=[self.group_names[i] for i in indices] if self.group_names else [],
            shards=[self.shards[i] for i in indices] if self.shards else [],
            stamp=self.stamp and functools.partial(_read_chosen, self.stamp, list(indices)),
            digest=self.digest and functools.partial(_read_chosen, self.digest, list(indices)),
        )

    def account(self, broken: Sequence[str] = ()) -> dict[str, Any]:
        """For JSON: how many `pictures` there are, what was `left_out`, and `notes`.

        Args:
            broken: messages about pictures that could not be read.
        """
        found: LeftOut = {"broken": without_prefix(broken)}
        return {
            "source": self.source,
            "pictures": len(self),
            "left_out": summary_of(merged(self.left_out, found)),
            "notes": self.notes,
        }

    def fingerprint(self) -> str:
        """sha256 over names, labels, texts and the sizes of pictures in bytes, wherever they lie:
        two sets with one fingerprint are the same task. No picture is opened."""
        digest = hashlib.sha256()
        for part in (self.keys, self.labels, self.class_names, self.captions, self.groups):
            digest.update(to_bytes(repr(part)))
        if self.answers:
            digest.update(repr(self.answers).encode())
        if self.stamp:
            digest.update(repr([self.stamp(i)[0] for i in range(len(self))]).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Files:
    """Pictures that are files of their own: `read` and `stamp` of a `Dataset`, which go to worker
    processes."""

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


def _read_chosen(read: Callable[[int], T], indices: list[int], index: int) -> T:
    return read(indices[index])


def file_stamp(path: Path) -> Stamp:
    """Of a file that holds one picture; (-1, -1, -1) if it is not there."""
    try:
        facts = os.stat(path)
    except OSError:
        return -1, -1, -1
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def rooted(recipe: Recipe) -> Recipe:
    """The recipe with the data root of this process in it, if there is one, so that a later
    process, without that option or variable and in any folder, finds the same data; with how its
    pictures are read; and with the templates that lie beside the data, so that the model is used by
    them where the data is not."""
    update: dict[str, Data] = {}
    for name, data in (("data", recipe.data), ("validation", recipe.validation)):
        if data is None:
            continue
        changes: dict[str, object] = {}
        if root := root_of(data):
            changes["data_root"] = str(Path(root).expanduser().absolute())
        if isinstance(data, ClipBenchmarkData):
            changes["templates"] = data.prompts()
        if not isinstance(data, EmojiData):  # its pictures have neither
            changes |= reading_of(data).facts()
        update[name] = data.model_copy(update=changes)
    return recipe.model_copy(update=update)


def first_folder(settings: Data, root: str | None, usual: tuple[str, ...], what: str) -> Path:
    """The folder `root`, or the first of the usual names that is under the data root.

    Raises:
        MissingData: it is not there; the message names every place that was looked at.
    """
    places = [located(settings, path) for path in ((root,) if root is not None else usual)]
    for place in places:
        if place.is_dir():
            return place
    if root is not None:
        raise MissingData(f"{what} is not at {places[0]}: no such folder.")
    base = located(settings, "")
    raise MissingData(
        f"{what} is not under {base.resolve()} in any of its usual folders: {', '.join(usual)}."
    )


def open_data(settings: Data) -> Dataset:
    """The data that a recipe or suite describes.

    Raises:
        BrokenInput: a file or folder is missing, empty or damaged.
        UsageError: the description does not fit the source, such as an unknown style.
        MissingDependency: the source needs a package that is not installed.
    """
    from radapter.data import (
        caption_files,
        coco,
        coop,
        emoji,
        folders,
        huggingface,
        imagenet,
        karpathy,
        objectnet,
        shards,
        tables,
    )

    if isinstance(settings, EmojiData):
        dataset = emoji.open_emoji(settings)
    elif isinstance(settings, FolderData):
        dataset = folders.open_folder(settings)
    elif isinstance(settings, TableData):
        dataset = tables.open_table(settings)
    elif isinstance(settings, CaptionFilesData):
        dataset = caption_files.open_caption_files(settings)
    elif isinstance(settings, ShardsData):
        dataset = shards.open_shards(settings)
    elif isinstance(settings, ClipBenchmarkData):
        dataset = shards.open_clip_benchmark(settings)
    elif isinstance(settings, KarpathyData):
        dataset = karpathy.open_karpathy(settings)
    elif isinstance(settings, CocoCaptionsData):
        dataset = coco.open_coco_captions(settings)
    elif isinstance(settings, HuggingFaceData):
        dataset = huggingface.open_huggingface(settings)
    elif isinstance(settings, ImageNetData):
        dataset = imagenet.open_imagenet(settings)
    elif isinstance(settings, ObjectNetData):
        dataset = objectnet.open_objectnet(settings)
    elif isinstance(settings, CoopData):
        dataset = coop.open_coop(settings)
    else:
        raise TypeError(f"no reader for {type(settings).__name__}")
    twice = [key for key, number in Counter(dataset.keys).items() if number > 1]
    if twice:
        raise BrokenInput(
            f"{dataset.source} has {len(twice)} names of more than one picture, such as {twice[0]}."
        )
    if settings.task == "classification" and dataset.keys and not dataset.labels:
        raise UsageError(f"{dataset.source} has no classes: `task: captions` trains on its texts.")
    if settings.task == "captions" and dataset.keys and not dataset.captions:
        raise UsageError(f"{dataset.source} has no captions: use `task: classification`.")
    if not isinstance(settings, EmojiData):  # its pictures have neither
        facts = reading_of(settings).facts()
        dataset = dataclasses.replace(dataset, protocol=dataset.protocol | facts)
    if isinstance(settings, HeldOut):
        dataset = split_of(dataset, settings)
    if isinstance(settings, ImageNetData) and settings.split != "validation":
        dataset = imagenet.draw_shots(dataset, settings)
    if not len(dataset):
        raise BrokenInput(f"{dataset.source} has no pictures.")
    return dataset


def split_of(dataset: Dataset, settings: HeldOut) -> Dataset:
    """Hold out a share, by class where there are classes: see `holding_out`.

    Pictures of one group stay together: a thing that was trained on is not held out.
    """
    if settings.split == "all" or (settings.split == "train" and not settings.hold_out):
        return dataset
    units = dataset.group_names or dataset.keys
    notes = list(dataset.notes)
    if settings.task == "classification" and settings.hold_out_by == "class":
        held = holding_out.by_class(units, dataset.labels, settings.hold_out)
        small = [dataset.class_names[i] for i in holding_out.too_small(units, dataset.labels)]
        if small:
            what = "classes have" if len(small) > 1 else "class has"
            notes.append(
                f"{len(small):,} {what} a single picture, which is trained on; nothing of them is "
                f"held out: {', '.join(small[:FIRST])}" + (", ..." if len(small) > FIRST else "")
            )
    else:
        held = holding_out.by_hash(units, settings.hold_out)
    wanted = settings.split == "validation"
    chosen = dataset.select([i for i, unit in enumerate(units) if (unit in held) == wanted])
    return dataclasses.replace(chosen, notes=notes)


@functools.cache
def name_skipped(message: str) -> None:
    """Say on stderr, once in a process, what is left out."""
    print(f"skipped: {message}", file=sys.stderr)


def check_broken(messages: Sequence[str], limit: int, setting: str) -> None:
    """An error that names the first few of what is broken, if that is more than the limit.

    Raises:
        BrokenInput: it is; the message names the setting of that limit.
    """
    if len(messages) > limit:
        what = "\n".join(messages[:5])
        raise BrokenInput(
            f"{what}\n{len(messages)} broken, and {setting} allows {limit}: "
            "mend or remove them, or raise that limit."
        )
