"""One's own videos: in a list with their captions or classes, or in class folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from radapter.data.class_names import class_name, classes_listed
from radapter.data.clip_files import find_clips, list_clips
from radapter.data.clips import ClipData
from radapter.data.dataset import Dataset, check_broken
from radapter.data.left_out import LeftOut, merged
from radapter.data.listing import list_pictures
from radapter.data.names_file import names_for
from radapter.data.settings import HeldOut, Listing, MissingData, located
from radapter.data.table_rows import Form, cell_of, read_rows, rows_of_split, texts_of
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
    left_out: LeftOut = field(default_factory=dict)
    """Files beside the clips of class folders"""


class VideosData(ClipData, HeldOut):
    """Videos (extra `video`), animated pictures, and folders of frames: named in a list with their
    captions or classes, or in one folder per class."""

    source: Literal["videos"]
    named_by = ("root", "path", "dataset_split")
    root: Annotated[str, Field(examples=["videos"])]
    """The folder of the videos. A folder of pictures in it is a clip too, of these frames."""
    path: Annotated[str, Field(examples=["videos.csv"])] | None = None
    """The list: a table as the source `table` takes it, with a video and a text in each row.
    `null`: the folders right below `root` are classes, and the videos lie in them."""
    video_column: str = "video"
    """The column of the videos' paths below `root`, with or without their endings."""
    text_column: str | Annotated[list[str], Field(min_length=1)] = "caption"
    """The column of the captions or class names. A video in several rows has several captions. A
    list of columns: each has a caption of the video."""
    text_lists: bool = False
    """Whether a cell of text is a JSON list of captions, as for the source `table`."""
    frames_column: str | None = None
    """The column with the names of a clip's frames in their order, a list, where clips are folders.
    `null`: all pictures in the folder, by name; 2.jpg comes before 10.jpg."""
    auxiliary_column: str | None = None
    """The column of auxiliary captions of a video, such as a program writes of its frames: a text,
    or a list of them. A suite may weight frames by them (`match`); nothing else reads them. `null`:
    there are none."""
    split_column: str | None = None
    """The column that says which split a row belongs to. `null`: the list has no splits."""
    dataset_split: str | None = None
    """Take only the rows with this value in `split_column`. It is needed with that key."""
    columns: list[str] | None = None
    """The names of the columns, if the list's first line does not have them. `null`: it has."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates cells, as for the source `table`."""
    quoting: Literal["usual", "none"] | None = None
    """What quotes mean, as for the source `table`."""
    class_names_in: str | None = None
    """A file with the names of class numbers or ids, as for the source `folder`. `null`: what the
    list says, or the folder is called, is the class name."""
    broken_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows without a video or a text are skipped and named; one more is an error."""

    pictures_elsewhere = True

    @model_validator(mode="after")
    def _splits_and_columns(self) -> VideosData:
        if (self.split_column is None) != (self.dataset_split is None):
            raise ValueError("split_column and dataset_split go together: give both, or neither")
        if self.task == "classification" and not isinstance(self.text_column, str):
            raise ValueError("several text columns are captions: name one, or set task: captions")
        return self

    def listing(self) -> Listing:
        """Where folders are classes, there is none."""
        if not self.path:
            return super().listing()
        return Listing(self._listed, self._row_of, self._captions)

    def _listed(self, path: str) -> VideosData:
        """With JSON lines in the place of the list."""
        plain = ("text_lists", "split_column", "dataset_split", "columns", "delimiter", "quoting")
        update = {key: type(self).model_fields[key].default for key in plain}
        return self.model_copy(update=update | {"path": path, "text_column": self._text_columns[0]})

    @property
    def _text_columns(self) -> list[str]:
        return [self.text_column] if isinstance(self.text_column, str) else self.text_column

    def _row_of(self, dataset: Dataset) -> Callable[[int, str], dict[str, Any]]:
        """The video, the caption, and the frames and the auxiliary captions that are listed."""
        further = self.frames_column or self.auxiliary_column
        rows = self._rows() if further else Rows({})

        def row(place: int, text: str) -> dict[str, Any]:
            key = dataset.keys[place]
            found: dict[str, Any] = {self.video_column: key, self._text_columns[0]: text}
            for column, of in (
                (self.frames_column, rows.frames), (self.auxiliary_column, rows.auxiliary)
            ):  # fmt: skip
                if column and key in of:
                    found[column] = of[key]
            return found

        return row

    def _captions(self, path: Path) -> dict[str, list[str]]:
        """By video its texts in another list with the same columns; it needs no frames."""
        alone = {"frames_column": None, "auxiliary_column": None}
        found = self._listed(str(path)).model_copy(update=alone)._rows()
        check_broken(found.broken, self.broken_rows, f"{path}: data.broken_rows")
        return found.texts

    def in_words(self) -> str:
        return f"videos {Path(self.path or self.root).name}"

    def open_pictures(self) -> Dataset:
        """The videos of the list, which needs no column of texts, or of the folders."""
        alone: dict[str, Any] = {}
        if self.path:
            alone = {"text_column": self.video_column, "text_lists": False}
            alone["auxiliary_column"] = None
        return self.model_copy(update={"task": "captions", **alone}).open()

    def open(self) -> Dataset:
        """Clips in the order of their names in the list, or of their folders."""
        root = located(self, self.root)
        if not root.is_dir():
            raise MissingData(f"No such folder: {root}. Correct data.root, or give --data-root.")
        rows = self._rows() if self.path else _in_folders(root)
        texts, listed = rows.texts, rows.frames
        check_broken(rows.broken, self.broken_rows, "data.broken_rows")
        if not texts:
            raise BrokenInput(f"{self.path or root} names no videos.")
        keys = list(texts)
        places = find_clips(root, keys, self.broken_images)
        need_decoder(places, f"data.source videos ({self.path or self.root})")
        labels: list[int] = []
        class_names: list[str] = []
        notes: list[str] = []
        if self.task == "classification":
            names: Callable[[Sequence[str]], list[str]] = list
            if self.class_names_in:
                names = partial(names_for, path=located(self, self.class_names_in))
            labels, class_names, notes = classes_listed(texts, self.path, "video", names)
        frames = [listed.get(key) for key in keys] if listed else None
        clips = Videos(root, places, self.frames, self.view, self.reading(), frames)
        return Dataset(
            source=f"videos {self.path or root}"
            + (f", {self.dataset_split}" if self.dataset_split else ""),
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
            left_out=merged(rows.left_out, {"broken row": rows.broken}),
            notes=notes,
        )

    def _rows(self) -> Rows:
        path = located(self, str(self.path))
        if not path.is_file():
            raise MissingData(f"No such file: {path}. Correct data.path, or give --data-root.")
        found = Rows({})
        further = [c for c in (self.frames_column, self.auxiliary_column, self.split_column) if c]
        needed = [self.video_column, *self._text_columns, *further]
        form = Form(self.video_column, self.columns, self.delimiter, self.quoting)
        read = read_rows(path, form, needed)
        for row in rows_of_split(read, self.split_column, self.dataset_split):
            video = cell_of(row, self.video_column)
            cells = [row.cells.get(column) for column in self._text_columns]
            own = [text for cell in cells for text in texts_of(cell, self.text_lists)]
            unsplit = self.split_column is not None and not cell_of(row, self.split_column)
            if row.broken or not video or not own or unsplit:
                found.broken.append(row.broken or f"{path}:{row.line}: a needed cell is empty.")
                continue
            found.texts.setdefault(video, []).extend(own)
            named = row.cells.get(self.frames_column) if self.frames_column else None
            if isinstance(named, list):
                found.frames[video] = [str(name) for name in named]
            if self.auxiliary_column and (more := texts_of(row.cells.get(self.auxiliary_column))):
                known = found.auxiliary.setdefault(video, [])
                known += [text for text in more if text not in known]
        return found


def _in_folders(root: Path) -> Rows:
    """By clip the name of the class that its folder stands for; what lies beside clips is left
    out."""
    clips = set(list_clips(root))
    taken = {name for name in clips if "/" in name}
    if not taken:
        raise BrokenInput(
            f"{root} has no class folders with videos: expected {root}/CLASS NAME/video.mp4, or a "
            "list in data.path."
        )
    files = list_pictures(root)
    others = [*files.pictures, *files.left_out.get("ending", ())]
    beside = [n for n in others if taken.isdisjoint((n, n.rpartition("/")[0]))]
    left_out = merged(
        {"ending": [name for name in beside if name not in clips]},
        {"hidden": files.left_out.get("hidden", ())},
        {"in no class": [name for name in beside if name in clips]},
    )
    texts = {name: [class_name(name.split("/")[0])] for name in sorted(taken)}
    return Rows(texts, left_out=left_out)
