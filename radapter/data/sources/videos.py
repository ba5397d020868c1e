"""One's own videos: in a list with their captions or classes, or in class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from radapter.data.class_names import class_name, gathered, joined_notes
from radapter.data.clip_files import find_clips, list_clips
from radapter.data.clips import ClipData
from radapter.data.dataset import Dataset, check_broken
from radapter.data.settings import HeldOut, MissingData, located
from radapter.data.table_rows import Form, read_rows
from radapter.data.videos import Videos, need_decoder
from radapter.errors import BrokenInput


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
    broken_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows without a video or a text are skipped and named; one more is an error."""

    def listed(self, path: str) -> VideosData | None:
        """With JSON lines in the place of the list; None where folders are classes."""
        return self.model_copy(update={"path": path}) if self.path else None

    def rows(self, dataset: Dataset) -> Callable[[int, str], dict[str, Any]]:
        """The video, the caption and, where clips are folders with a list, the frames."""
        frames = self._rows()[1] if self.frames_column else {}

        def row(place: int, text: str) -> dict[str, Any]:
            key = dataset.keys[place]
            found: dict[str, Any] = {self.video_column: key, self.text_column: text}
            return found | ({str(self.frames_column): frames[key]} if key in frames else {})

        return row

    def captions_in(self, path: Path) -> dict[str, list[str]]:
        """By video its texts in another list with the same columns; it needs no frames."""
        other = self.model_copy(update={"path": str(path), "frames_column": None})
        texts, _, broken = other._rows()
        check_broken(broken, self.broken_rows, f"{path}: data.broken_rows")
        return texts

    def in_words(self) -> str:
        return f"videos {Path(self.path or self.root).name}"

    def open_pictures(self) -> Dataset:
        """The videos of the list, which needs no column of texts, or of the folders."""
        alone = {"text_column": self.video_column} if self.path else {}
        return self.model_copy(update={"task": "captions", **alone}).open()

    def open(self) -> Dataset:
        """Clips in the order of their names in the list, or of their folders."""
        root = located(self, self.root)
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
        texts, listed, broken = self._rows() if self.path else (_in_folders(root), {}, [])
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
            several = next((key for key in keys if len(set(texts[key])) > 1), None)
            if several:
                raise BrokenInput(
                    f"{self.path}: {several} has several classes. Classification takes one a video."
                )
            spelled = sorted({texts[key][0] for key in keys})
            class_names, numbers = gathered(spelled)
            notes = joined_notes(spelled, numbers)
            number = dict(zip(spelled, numbers, strict=True))
            labels = [number[texts[key][0]] for key in keys]
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
            groups=list(range(len(keys))),
            protocol=self.clip_facts(),
            stamp=clips.stamp,
            digest=clips.digest,
            left_out={"broken row": broken} if broken else {},
            notes=notes,
        )

    def _rows(self) -> tuple[dict[str, list[str]], dict[str, list[str]], list[str]]:
        """By video its texts and the names of its frames; messages about broken rows."""
        path = located(self, str(self.path))
        if not path.is_file():
            raise MissingData(f"No such file: {path}. Correct data.path, or give --data-root.")
        texts: dict[str, list[str]] = {}
        frames: dict[str, list[str]] = {}
        broken = []
        needed = [self.video_column, self.text_column]
        needed += [self.frames_column] if self.frames_column else []
        for row in read_rows(path, Form(self.video_column), needed):
            video = str(row.cells.get(self.video_column) or "").strip()
            found = row.cells.get(self.text_column)
            own = [str(t).strip() for t in (found if isinstance(found, list) else [found]) if t]
            named = row.cells.get(self.frames_column) if self.frames_column else None
            if row.broken or not video or not any(own):
                broken.append(row.broken or f"{path}:{row.line}: a needed cell is empty.")
                continue
            texts.setdefault(video, []).extend(text for text in own if text)
            if isinstance(named, list):
                frames[video] = [str(name) for name in named]
        return texts, frames, broken


def _in_folders(root: Path) -> dict[str, list[Any]]:
    """By clip the name of the class that its folder stands for."""
    found = [name for name in list_clips(root) if "/" in name]
    if not found:
        raise BrokenInput(
            f"{root} has no class folders with videos: expected {root}/CLASS NAME/video.mp4, or a "
            "list in data.path."
        )
    return {name: [class_name(name.split("/")[0])] for name in found}
