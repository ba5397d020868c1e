"""One's own videos: in a list with their captions or classes, or in class folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from radapter.data.class_names import class_name, classes_listed
from radapter.data.clip_files import find_clips, list_clips
from radapter.data.clips import ClipData
from radapter.data.dataset import Dataset, check_broken
from radapter.data.settings import HeldOut, Listing, MissingData, located
from radapter.data.table_rows import Form, read_rows
from radapter.data.videos import Videos, need_decoder
from radapter.errors import BrokenInput


@dataclass
class Rows:
    """What a list says, by video."""

    texts: dict[str, list[str]]
    frames: dict[str, list[str]] = field(default_factory=dict)
    """Names of a clip's frames, where they are listed"""
    auxiliary: dict[str, list[str]] = field(default_factory=dict)
    """Auxiliary captions"""
    broken: list[str] = field(default_factory=list)
    """Messages about rows"""


class VideosData(ClipData, HeldOut):
    """Videos (extra `video`), animated pictures, and folders of frames: named in a list with their
    captions or classes, or in one folder per class."""

    source: Literal["videos"]
    named_by = ("root", "path")
    root: Annotated[str, Field(examples=["videos"])]
    """The folder of the videos. A folder of pictures in it is a clip too, of these frames."""
    path: Annotated[str, Field(examples=["videos.csv"])] | None = None
    """The list: a table as the source `table` takes it, with a video and a text in each row.
    `null`: the folders right below `root` are classes, and the videos lie in them."""
    video_column: str = "video"
    """The column of the videos' paths below `root`, with or without their endings."""
    text_column: str = "caption"
    """The column of the captions or class names. A video in several rows has several captions."""
    frames_column: str | None = None
    """The column with the names of a clip's frames in their order, a list, where clips are folders.
    `null`: all pictures in the folder, by name; 2.jpg comes before 10.jpg."""
    auxiliary_column: str | None = None
    """The column of auxiliary captions of a video, such as a program writes of its frames: a text,
    or a list of them. A suite may weight frames by them (`match`); nothing else reads them. `null`:
    there are none."""
    broken_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows without a video or a text are skipped and named; one more is an error."""

    def listing(self) -> Listing:
        """Where folders are classes, there is none."""
        if not self.path:
            return super().listing()
        return Listing(self._listed, self._row_of, self._captions)

    def _listed(self, path: str) -> VideosData:
        """With JSON lines in the place of the list."""
        return self.model_copy(update={"path": path})

    def _row_of(self, dataset: Dataset) -> Callable[[int, str], dict[str, Any]]:
        """The video, the caption, and the frames and the auxiliary captions that are listed."""
        further = self.frames_column or self.auxiliary_column
        rows = self._rows() if further else Rows({})

        def row(place: int, text: str) -> dict[str, Any]:
            key = dataset.keys[place]
            found: dict[str, Any] = {self.video_column: key, self.text_column: text}
            for column, of in (
                (self.frames_column, rows.frames), (self.auxiliary_column, rows.auxiliary)
            ):  # fmt: skip
                if column and key in of:
                    found[column] = of[key]
            return found

        return row

    def _captions(self, path: Path) -> dict[str, list[str]]:
        """By video its texts in another list with the same columns; it needs no frames."""
        alone = {"path": str(path), "frames_column": None, "auxiliary_column": None}
        found = self.model_copy(update=alone)._rows()
        check_broken(found.broken, self.broken_rows, f"{path}: data.broken_rows")
        return found.texts

    def in_words(self) -> str:
        return f"videos {Path(self.path or self.root).name}"

    def open_pictures(self) -> Dataset:
        """The videos of the list, which needs no column of texts, or of the folders."""
        alone = {"text_column": self.video_column, "auxiliary_column": None} if self.path else {}
        return self.model_copy(update={"task": "captions", **alone}).open()

    def open(self) -> Dataset:
        """Clips in the order of their names in the list, or of their folders."""
        root = located(self, self.root)
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
        rows = self._rows() if self.path else Rows(_in_folders(root))
        texts, listed, broken = rows.texts, rows.frames, rows.broken
        check_broken(broken, self.broken_rows, "data.broken_rows")
        if not texts:
            raise BrokenInput(f"{self.path or root} names no videos.")
        keys = list(texts)
        places = find_clips(root, keys, self.broken_images)
        need_decoder(places, f"data.source videos ({self.path or self.root})")
        labels: list[int] = []
        class_names: list[str] = []
        notes: list[str] = []
        if self.task == "classification":
            labels, class_names, notes = classes_listed(texts, self.path, "video")
        frames = [listed.get(key) for key in keys] if listed else None
        clips = Videos(root, places, self.frames, self.view, self.reading(), frames)
        return Dataset(
            source=f"videos {self.path or root}",
            keys=keys,
            read=clips.read,
            read_anew=self.drawn_anew(clips.read_anew),
            frames=self.frames,
            labels=labels,
            class_names=class_names,
            captions=[texts[key] for key in keys] if self.path else [],
            auxiliary=[rows.auxiliary.get(key, []) for key in keys] if rows.auxiliary else [],
            groups=list(range(len(keys))),
            protocol=self.clip_facts(),
            stamp=clips.stamp,
            digest=clips.digest,
            left_out={"broken row": broken} if broken else {},
            notes=notes,
        )

    def _rows(self) -> Rows:
        path = located(self, str(self.path))
        if not path.is_file():
            raise MissingData(f"No such file: {path}. Correct data.path, or give --data-root.")
        found = Rows({})
        further = [c for c in (self.frames_column, self.auxiliary_column) if c]
        needed = [self.video_column, self.text_column, *further]
        for row in read_rows(path, Form(self.video_column), needed):
            video = str(row.cells.get(self.video_column) or "").strip()
            own = _texts(row.cells.get(self.text_column))
            if row.broken or not video or not own:
                found.broken.append(row.broken or f"{path}:{row.line}: a needed cell is empty.")
                continue
            found.texts.setdefault(video, []).extend(own)
            named = row.cells.get(self.frames_column) if self.frames_column else None
            if isinstance(named, list):
                found.frames[video] = [str(name) for name in named]
            if self.auxiliary_column and (more := _texts(row.cells.get(self.auxiliary_column))):
                known = found.auxiliary.setdefault(video, [])
                known += [text for text in more if text not in known]
        return found


def _texts(cell: Any) -> list[str]:
    """Those of a cell, which is a text or a list of them."""
    texts = cell if isinstance(cell, list) else [cell]
    return [text for t in texts if t and (text := str(t).strip())]


def _in_folders(root: Path) -> dict[str, list[Any]]:
    """By clip the name of the class that its folder stands for."""
    found = [name for name in list_clips(root) if "/" in name]
    if not found:
        raise BrokenInput(
            f"{root} has no class folders with videos: expected {root}/CLASS NAME/video.mp4, or a "
            "list in data.path."
        )
    return {name: [class_name(name.split("/")[0])] for name in found}
