"""Published sets of videos, as their archives and lists lie on a disk.

Retrieval, with the splits that papers report: MSR-VTT (9k or 7k for training, 1k-A of JSFusion for
testing), MSVD, LSMDC, DiDeMo and ActivityNet Captions (a paragraph a video). Actions: UCF101 (its
first lists) and Moments in Time. Lists are read under their published names; a hash of what they
name tells whether they are the published ones.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from radapter.data import holding_out
from radapter.data.clip_files import find_clips
from radapter.data.clips import ClipData
from radapter.data.dataset import Dataset
from radapter.data.json_files import read_list, read_object
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import Data, MissingData, first_folder
from radapter.data.videos import Videos, need_decoder
from radapter.errors import BrokenInput, UsageError

Split = Literal["train", "validation", "test"]
Texts = dict[str, list[str]]
"""By the name of a video its captions, or its class"""


class VideoSetsData(ClipData):
    """Published sets of videos with captions (MSR-VTT, MSVD, LSMDC, DiDeMo, ActivityNet) or actions
    (UCF101, Moments in Time). Videos may be folders of frames, as `radapter data frames` makes."""

    convention = PUBLISHED
    source: Literal["video-sets"]
    named_by = ("dataset", "root")
    dataset: Annotated[
        Literal["msr-vtt", "msvd", "lsmdc", "didemo", "activitynet", "ucf101", "moments-in-time"],
        Field(examples=["msr-vtt"]),
    ]
    """The set."""
    root: str | None = None
    """Its folder, with the lists in it and the videos anywhere below. `null`: the folder of its
    name under the data root."""
    split: Split = "train"
    """Which videos are taken. MSR-VTT's test set is 1k-A; ActivityNet's is val_1, Moments in Time's
    its validation set. Some sets have no `validation`."""
    train_list: Literal["9k", "7k"] = "9k"
    """Of MSR-VTT, which list is trained on: `9k` is all but 1k-A, `7k` the published training and
    validation parts without it."""

    hold_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of a set without a split for it, the share of the training videos that is held out for
    validation, by a hash of their names."""

    def in_words(self) -> str:
        return f"{self.dataset} {self.split}"

    def published_as(self) -> str:
        return self.dataset

    def held_out(self) -> Data | None:
        return super().held_out() if "validation" in self._splits() else None

    def _splits(self) -> tuple[str, ...]:
        own = LAYOUTS[self.dataset].splits
        return (*own, "validation") if self.hold_out and "validation" not in own else own

    def is_set_of(self, trained: Data) -> bool:
        same = isinstance(trained, VideoSetsData) and trained.dataset == self.dataset
        return same and self.view == "clip"

    def open(self) -> Dataset:
        """The videos that a list names, in its order."""
        layout = LAYOUTS[self.dataset]
        if self.split not in self._splits():
            raise UsageError(
                f"{self.dataset} has no split '{self.split}': {', '.join(layout.splits)}."
            )
        root = first_folder(self, self.root, (self.dataset,), self.dataset)
        texts, named = self._read(root)
        if layout.task != self.task:
            what = "classes" if layout.task == "classification" else "captions"
            raise UsageError(f"{self.dataset} has {what} alone: set data.task: {layout.task}.")
        keys = list(texts)
        places = find_clips(root, keys, self.broken_images)
        need_decoder(places, f"data.dataset {self.dataset}")
        clips = Videos(root, places, self.frames, self.view, self.reading())
        names = layout.classes(root) if layout.classes else []
        number = {name: place for place, name in enumerate(names)}
        unknown = [own[0] for own in texts.values() if own[0] not in number] if names else []
        if unknown:
            raise BrokenInput(f"{root}: the list of classes has no '{unknown[0]}'.")
        return Dataset(
            source=f"{self.dataset}, {self.split}",
            keys=keys,
            read=clips.read,
            read_anew=self.drawn_anew(clips.read_anew),
            frames=self.frames,
            labels=[number[own[0]] for own in texts.values()] if names else [],
            class_names=names,
            captions=[] if names else list(texts.values()),
            groups=list(range(len(keys))),
            protocol=self.clip_facts() | {"list": named},
            stamp=clips.stamp,
            digest=clips.digest,
        )

    def _read(self, root: Path) -> tuple[Texts, str]:
        """The texts of the split, and what is known of the list that names its videos."""
        own = LAYOUTS[self.dataset]
        if self.split == "test" or "validation" in own.splits or not self.hold_out:
            texts = own.read(root, self)
            return texts, self._list(list(texts))
        train = self.model_copy(update={"split": "train"})
        texts = own.read(root, train)
        held = holding_out.by_hash(list(texts), self.hold_out)
        wanted = self.split == "validation"
        return {k: t for k, t in texts.items() if (k in held) == wanted}, train._list(list(texts))

    def _list(self, keys: list[str]) -> str:
        """Whether it is the published list, by what it names."""
        several = self.dataset == "msr-vtt" and self.split == "train"
        split = f"{self.split} {self.train_list}" if several else self.split
        wanted = HASHES.get((self.dataset, split))
        if wanted is None:
            return "not compared"
        return "as published" if hash_of(keys) == wanted else OTHER

    def unlike_published(self, dataset: Dataset) -> list[str]:
        wrong = dataset.protocol["list"] == OTHER
        return [f"the {self.split} list names other videos than the published one"] * wrong


def hash_of(names: list[str]) -> str:
    """sha256 of a list's names, in alphabetical order, a line each."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


OTHER = "another one than published"
HASHES = {
    ("msr-vtt", "test"): "49a09fb68f7ec52b3b9bbb7e856ffbd3f00233976ed435fded658309c3cd491a",
    ("msr-vtt", "train 9k"): "7dce4e3e1af1eded0cb9edbf4a30dc6ad15b9ec201c7a6b4b2860d39280de4d7",
    ("msr-vtt", "train 7k"): "81ea9208d6c64212cd45f7e03774a8c82d45afe7c57efdb3e7d1a630f0b34700",
    ("msvd", "train"): "223a750f33fcec3c5fcb1894123564e67286edd1e9f9473be97930340027d659",
    ("msvd", "validation"): "0e6b31c93757d25115f04e1974bcdc7962b3fce17832b397f6e83e9ff096881b",
    ("msvd", "test"): "8d2c6c42af984fd02de95caffc7c6e4fafadeed81b5d99c8aa1584b12367a85c",
    ("didemo", "train"): "4c0a9cc57e590b97e963794a258adc7a350c63e2bfbea2d6afe0763b7adb5079",
    ("didemo", "validation"): "ed1624443b5acbab8284c757fbaf2fb0100d4df4b275f38241ffa5dd57fa0be2",
    ("didemo", "test"): "cdcca842f67f430b89615d39ae9a4cb19284f45a76cd71edee89ed3e1fd793cf",
    ("activitynet", "train"): "894634826e57c577256324f564963be39e5c8aa9c2ef4229eaaabd3786b229b6",
    ("activitynet", "test"): "6da5bed74d0b4940843c7adce3689003d1dfbefec8181c4aa269a48cddc882b3",
}
"""`hash_of` the lists in github.com/albanie/collaborative-experts (all but MSR-VTT's 7k) and in
github.com/layer6ai-labs/xpool (MSR-VTT, MSVD), which agree where both have one"""


# ---------------------------------------------------------------- the layouts


@dataclass(frozen=True)
class Layout:
    """How a set lies on a disk."""

    read: Callable[[Path, VideoSetsData], Texts]
    splits: tuple[Split, ...]
    task: Literal["classification", "captions"] = "captions"
    classes: Callable[[Path], list[str]] | None = None
    """All of them, in the published order"""


def _msr_vtt(root: Path, settings: VideoSetsData) -> Texts:
    """MSRVTT_JSFUSION_test.csv has a caption a video; the rest is in MSRVTT_data.json."""
    if settings.split == "test":
        rows = _table(root / "MSRVTT_JSFUSION_test.csv", "video_id", "sentence")
        return {row["video_id"]: [row["sentence"].strip()] for row in rows}
    rows = _table(root / f"MSRVTT_train.{settings.train_list}.csv", "video_id")
    texts: Texts = {row["video_id"]: [] for row in rows}
    for entry in read_object(root / "MSRVTT_data.json")["sentences"]:
        if entry["video_id"] in texts:
            texts[entry["video_id"]].append(entry["caption"].strip())
    return _whole(texts, root / "MSRVTT_data.json")


def _msvd(root: Path, settings: VideoSetsData) -> Texts:
    """Captions are in captions_msvd.json, or in the corpus' own AllVideoDescriptions.txt."""
    name = {"train": "train", "validation": "val", "test": "test"}[settings.split]
    texts: Texts = {video: [] for video in _lines(root / f"{name}_list.txt")}
    path = root / "captions_msvd.json"
    if path.is_file():
        said = read_object(path)
        return _whole({v: [str(t) for t in said.get(v, [])] for v in texts}, path)
    path = root / "AllVideoDescriptions.txt"
    for line in _lines(path):
        video, _, text = line.partition(" ")
        if video in texts:
            texts[video].append(text.strip())
    return _whole(texts, path)


def _lsmdc(root: Path, settings: VideoSetsData) -> Texts:
    """Lines of six cells between tabs: the clip, four times, the sentence."""
    name = {
        "train": "LSMDC16_annos_training.csv",
        "validation": "LSMDC16_annos_val.csv",
        "test": "LSMDC16_challenge_1000_publictect.csv",
    }[settings.split]
    texts: Texts = {}
    for line in _lines(root / name):
        cells = line.split("\t")
        if len(cells) != 6:
            raise BrokenInput(f"{root / name}: a line has {len(cells)} cells, not 6: {line[:60]}")
        texts.setdefault(cells[0], []).append(cells[5].strip())
    return texts


def _didemo(root: Path, settings: VideoSetsData) -> Texts:
    """All descriptions of a video, in the order of the file, are its one caption."""
    name = {"train": "train", "validation": "val", "test": "test"}[settings.split]
    texts: Texts = {video: [] for video in _lines(root / f"{name}_list.txt")}
    path = root / f"{name}_data.json"
    for entry in read_list(path):
        if entry["video"] in texts:
            texts[entry["video"]].append(entry["description"].strip())
    return {video: [" ".join(own)] for video, own in _whole(texts, path).items()}


def _activitynet(root: Path, settings: VideoSetsData) -> Texts:
    """All sentences of a video are its one caption."""
    path = root / {"train": "train.json", "test": "val_1.json"}[settings.split]
    entries = read_object(path).items()
    return {video: [" ".join(s.strip() for s in facts["sentences"])] for video, facts in entries}


def _ucf101(root: Path, settings: VideoSetsData) -> Texts:
    """Lists name CLASS/video.avi, those to train on with the number of the class."""
    name = {"train": "trainlist01.txt", "test": "testlist01.txt"}[settings.split]
    videos = [line.split()[0] for line in _lines(root / "ucfTrainTestlist" / name)]
    return {f"UCF-101/{video}": [_in_words(video.split("/")[0])] for video in videos}


def _ucf101_classes(root: Path) -> list[str]:
    lines = _lines(root / "ucfTrainTestlist" / "classInd.txt")
    return [_in_words(line.split()[1]) for line in lines]


def _in_words(name: str) -> str:
    """ApplyEyeMakeup as three words, as CLIP's and FitCLIP's lists have it."""
    return " ".join(re.findall(r"[A-Za-z][^A-Z]*", name))


def _moments(root: Path, settings: VideoSetsData) -> Texts:
    """Rows without a header: CLASS/video.mp4, the class, who agreed, who did not."""
    part = {"train": "training", "test": "validation"}[settings.split]
    rows = csv.reader(_lines(root / f"{part}Set.csv"))
    return {f"{part}/{row[0]}": [row[1].replace("+", " ")] for row in rows}


def _moments_classes(root: Path) -> list[str]:
    rows = (line.rsplit(",", 1) for line in _lines(root / "moments_categories.txt"))
    found = sorted((int(number), name.replace("+", " ")) for name, number in rows)
    return [name for _, name in found]


WITH_VALIDATION: tuple[Split, ...] = ("train", "validation", "test")
WITHOUT: tuple[Split, ...] = ("train", "test")
LAYOUTS = {
    "msr-vtt": Layout(_msr_vtt, WITHOUT),
    "msvd": Layout(_msvd, WITH_VALIDATION),
    "lsmdc": Layout(_lsmdc, WITH_VALIDATION),
    "didemo": Layout(_didemo, WITH_VALIDATION),
    "activitynet": Layout(_activitynet, WITHOUT),
    "ucf101": Layout(_ucf101, WITHOUT, "classification", _ucf101_classes),
    "moments-in-time": Layout(_moments, WITHOUT, "classification", _moments_classes),
}


# ---------------------------------------------------------------- reading lists


def _need(path: Path) -> Path:
    if not path.is_file():
        raise MissingData(f"No such file: {path}. Correct data.root, or give --data-root.")
    return path


def _lines(path: Path) -> list[str]:
    """Lines that are not empty and no comment."""
    lines = _need(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _table(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    with open(_need(path), newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = [name for name in columns if name not in (rows.fieldnames or [])]
        if missing:
            raise BrokenInput(f"{path} has no column '{missing[0]}'.")
        yield from rows


def _whole(texts: Texts, path: Path) -> Texts:
    """BrokenInput if a video has no caption."""
    without = [video for video, own in texts.items() if not any(own)]
    if without:
        raise BrokenInput(f"{path} has no caption of {len(without)} videos, such as {without[0]}.")
    return texts
