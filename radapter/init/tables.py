"""Tables: the separator, which column is what, the rows of a split."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radapter.data.clip_files import find_clips, is_clip
from radapter.data.names_file import is_id
from radapter.data.pixels import is_picture
from radapter.data.sources.table import Gathered, TableData, gather
from radapter.data.table_rows import DELIMITED, ENDINGS, Form, delimiter_of, read_rows
from radapter.data.videos import is_video, need_decoder
from radapter.errors import BrokenInput, UsageError
from radapter.init.class_words import names_file_for, refuse_several_classes
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import Chosen, Doubt, choose, is_plain, split_of_name
from radapter.init.table_pictures import find_pictures
from radapter.init.videos import WHY_FRAMES, most_move, of_videos

DELIMITERS = (",", "\t", "|", ";")
IMAGE_COLUMNS = (
    "filepath", "image", "path", "file", "filename", "file_name", "file_path", "image_path",
    "image_name", "image_file", "img", "img_path", "picture", "image_id", "img_id", "id",
)  # fmt: skip
VIDEO_COLUMNS = (
    "video", "video_path", "video_file", "video_name", "video_id", "videoid", "clip", "clip_path",
    "clip_name", "clip_id",
)  # fmt: skip
CAPTION_COLUMNS = ("title", "caption", "text", "comment", "description", "sentence", "raw")
CLASS_COLUMNS = ("label", "class", "category", "class_name", "label_name", "breed", "species")
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "usage", "data set", "data_set")
FEW = 20  # distinct values of a column that are kept
SAMPLE = 200  # rows that are kept
FIRST = ("filepath", "title")
"""What columns are called where no line says it"""


@dataclass
class Look:
    """What stands in a table."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """The first ones"""
    values: dict[str, set[str]] = field(default_factory=dict)
    """Distinct values of a column, FEW and one more at most"""

    @property
    def columns(self) -> list[str]:
        return list(self.values)

    def of(self, column: str) -> list[str]:
        cells = (row.get(column) for row in self.rows)
        return [str(cell) for cell in cells if cell is not None]


def is_table(path: Path) -> bool:
    """Whether a file in a folder may be one; of texts only those with a line of known columns."""
    ending = path.suffix.lower()
    if path.name.startswith(".") or ending not in ENDINGS:
        return False
    if ending == ".json":
        with open(path, "rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    if ending != ".txt":
        return True
    try:
        header = _header(path)[1]
    except BrokenInput:
        return False
    items = VIDEO_COLUMNS + IMAGE_COLUMNS
    return all(_column(header, known) for known in (items, CAPTION_COLUMNS + CLASS_COLUMNS))


def table(spot: Spot, wanted: Wanted) -> Found:
    """A data section for a table."""
    data: dict[str, Any] = {"source": "table", "path": spot.written, "task": "captions"}
    found = Found("a table", data)
    if spot.path.suffix.lower() in DELIMITED:
        _separators(spot.path, found)
    look = _look(spot.path, data, found)
    video = _video_column(look, found)
    image = video or _column(look.columns, IMAGE_COLUMNS, look) or _first(look, is_picture)
    split = _split(look, spot, wanted, image)
    _texts(look, spot, wanted, image, split, found)
    data["image_column"] = image
    if split is not None:
        column, chosen = split
        data |= {"split_column": column, "dataset_split": chosen.train}
        found.taken["split_column"] = "rows of other splits are left alone"
        found.choose(chosen, lambda name: {"dataset_split": name})
    gathered = gather(spot.path, TableData.model_validate(data))
    _broken_rows(gathered, spot.path, found)
    meant = split_of_name(spot.path.stem if split is None else split[1].train)
    names = list(gathered.texts)
    place = find_pictures(spot, wanted, names, meant, found, clips=video is not None)
    files = [place.path / name for name in names if is_clip(name)]
    if data["task"] == "classification":
        classes = sorted({text for texts in gathered.texts.values() for text in texts})
        refuse_several_classes(spot.path, data["text_column"], classes)
        if classes and all(map(is_id, classes)):
            names_file_for(spot, classes, found)
    # A column of pictures that move: what they are called does not say it.
    if video or (2 * len(files) > len(gathered.texts) and most_move(files)):
        found_as = find_clips(place.path, names, len(names))
        need_decoder(found_as, f"Reading the videos of {spot.path}")
        found.what, found.data = "a table of videos", of_videos(data, place.written)
        found.taken["frames"] = WHY_FRAMES
    return found


# ---------------------------------------------------------------- how it is written


def _separators(path: Path, found: Found) -> None:
    """Delimiter, quoting, and columns where no line names them."""
    data = found.data
    delimiter, header = _header(path)
    data["delimiter"] = delimiter
    if any(map(_is_item, header)) and not _column(header, CAPTION_COLUMNS + CLASS_COLUMNS):
        image = next(i for i, cell in enumerate(header) if _is_item(cell))
        names = [f"column {i + 1}" for i in range(len(header))]
        names[image] = FIRST[0]
        if len(header) == 2:
            names[1 - image] = FIRST[1]
        data["columns"] = names
        found.taken["columns"] = "the first line is a row like others, so they are named here"
    form = Form(FIRST[0], data.get("columns"), delimiter)
    if delimiter == delimiter_of(path, Form()):
        del data["delimiter"]
    if delimiter == "|":
        return
    usual, bare = (_rows_broken(path, form, quoting) for quoting in ("usual", "none"))
    if usual and not bare:
        data["quoting"] = "none"
        found.taken["quoting"] = "quotes are plain characters here; `usual` would lose rows"


def _rows_broken(path: Path, form: Form, quoting: str) -> bool:
    form = dataclasses.replace(form, quoting=quoting)
    try:
        return any(row.broken for row in read_rows(path, form, []))
    except BrokenInput:
        return True


def _header(path: Path) -> tuple[str, list[str]]:
    """The separator that makes the most of the first line, and its cells."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            line = file.readline().rstrip("\r\n")
        columns = {d: next(csv.reader([line], delimiter=d), []) for d in DELIMITERS}
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrokenInput(f"{path} is not a readable table: {error}") from None
    known = VIDEO_COLUMNS + IMAGE_COLUMNS + CAPTION_COLUMNS + CLASS_COLUMNS
    delimiter = max(
        DELIMITERS,
        key=lambda d: (sum(_plain(name) in known for name in columns[d]), len(columns[d])),
    )
    name, space, number = line.rpartition(" ")
    if len(columns[delimiter]) == 1 and space and _is_item(name) and number.isdigit():
        return " ", [name, number]  # a list of names and class numbers
    cells = columns[delimiter]
    return delimiter, [cell.strip() for cell in cells] if delimiter == "|" else cells


def _look(path: Path, data: dict[str, Any], found: Found) -> Look:
    settings = TableData.model_validate(data)
    look = Look()
    for row in read_rows(path, settings.form(), []):
        for column, cell in row.cells.items():
            seen = look.values.setdefault(str(column), set())
            if cell is not None and len(seen) <= FEW:
                seen.add(str(cell).strip())
        if row.cells and len(look.rows) < SAMPLE:
            look.rows.append(row.cells)
    if not look.rows:
        raise BrokenInput(f"{path} has no rows.")
    return look


# ---------------------------------------------------------------- which column is what


def _plain(name: str) -> str:
    """`Captions`, `caption_2` and `caption` are one kind of column."""
    return re.sub(r"[_ -]?\d+$", "", name.strip().lower()).removesuffix("s")


def _column(header: list[str], known: tuple[str, ...], look: Look | None = None) -> str | None:
    """The first of the known columns; of pictures rather one that has names of files."""
    kept = [name for kind in known for name in header if _plain(name) in (kind, kind[:-1])]
    exact = [name for kind in known for name in header if name.strip().lower() == kind]
    names = list(dict.fromkeys(exact + kept))
    if look is not None:
        files = [name for name in names if any(map(is_picture, look.of(name)[:1]))]
        names = files or names
    return names[0] if names else None


def _video_column(look: Look, found: Found) -> str | None:
    """The column that names videos, with or without their endings; None: it is a table of pictures.
    So is one that has both, if the column of the pictures is called like one."""
    named = _column(look.columns, VIDEO_COLUMNS)
    pictures = [c for c in look.columns if any(map(is_picture, look.of(c)[:1]))]
    files = [c for c in look.columns if any(map(is_video, look.of(c)[:1]))]
    image = _column([c for c in pictures if c != named], IMAGE_COLUMNS)
    if image is None and files:
        return named if named in files else _column(files, IMAGE_COLUMNS) or files[0]
    if image is None and (not pictures or named in pictures):
        return named
    if files:
        found.notes.append(
            f"pictures are taken from '{image}': for the videos of '{files[0]}' write a table "
            "without that column."
        )
    return None


def _first(look: Look, kind: Callable[[str], bool]) -> str | None:
    """The first column whose first cell is of a kind."""
    return next((c for c in look.columns if any(map(kind, look.of(c)[:1]))), None)


def _is_item(name: str) -> bool:
    return is_picture(name) or is_video(name)


def _texts(
    look: Look,
    spot: Spot,
    wanted: Wanted,
    image: str | None,
    split: tuple[str, Chosen] | None,
    found: Found,
) -> None:
    """Put text_column, text_lists and task into the data section."""
    data = found.data
    others = [c for c in look.columns if c != image and (split is None or c != split[0])]
    caption, label = _column(others, CAPTION_COLUMNS), _column(others, CLASS_COLUMNS)
    flags = [c for c in others if look.values[c] <= {"0", "1", "0.0", "1.0"}]
    if image is not None and not caption and not label and len(flags) > 1:
        raise UsageError(
            f"{spot.path} has a column for each class ({', '.join(others[:3])}, ...). "
            "Training takes one class a picture: write it into one column, label."
        )
    text = caption or label or (others[0] if len(others) == 1 else None)
    if wanted.task == "classification" and label:
        text = label
    if image is None or text is None:
        missing = "a picture in each row" if image is None else "a caption or class in each row"
        raise UsageError(
            f"{spot.path} has the columns {', '.join(look.columns)}, and none that is known for "
            f"{missing}. Name them in data.image_column and data.text_column of a recipe: "
            "`radapter recipes copy own-data`."
        )
    if wanted.task == "classification" and not label and caption and "columns" not in data:
        raise UsageError(
            f"--task classification: {spot.path} has captions ('{caption}') and no column that is "
            "known for classes: call it label."
        )
    numbers = "columns" in data and all(cell.isdigit() for cell in look.of(text))
    is_class = text == label or numbers
    data["task"] = wanted.task or ("classification" if is_class else "captions")
    data["image_column"], data["text_column"] = image, text
    if data["task"] == "captions":
        _captions(look, others, text, found)
        if label and text != label:
            found.notes.append(
                f"for classes instead of captions: --task classification (text_column: {label})."
            )


def _captions(look: Look, others: list[str], text: str, found: Found) -> None:
    same = [c for c in others if _plain(c) == _plain(text)]
    if len(same) > 1:
        found.data["text_column"] = same
        found.taken["text_column"] = "every column has a caption of the picture"
    more = [c for c in others if _plain(c) in CAPTION_COLUMNS and c not in same]
    if more:
        found.notes.append(
            f"texts are taken from {', '.join(same)} and not from {', '.join(more)}: "
            "data.text_column takes a list of columns."
        )
    cells = look.of(text)
    lists = all(re.fullmatch(r"\s*\[.*\]\s*", cell, re.S) for cell in cells)
    if cells and lists and all(isinstance(row.get(text), str) for row in look.rows):
        found.data["text_lists"] = True
        found.taken["text_lists"] = "each cell is a JSON list of captions"


def _split(look: Look, spot: Spot, wanted: Wanted, image: str | None) -> tuple[str, Chosen] | None:
    """(column, what is chosen of its values), or None if no column says a split."""
    if wanted.split == "none":
        return None
    for column in look.columns:
        values = {value for value in look.values[column] if value}
        if column == image or not values or len(values) > FEW:
            continue
        usual = column.strip().lower() in SPLIT_COLUMNS
        plain = [value for value in values if is_plain(value)]
        several = len(plain) == len(values) > 1 or len(set(map(split_of_name, plain))) > 1
        if (plain and usual) or several or (usual and wanted.split in values):
            what = f"rows that the column '{column}' calls"
            chosen = choose(sorted(values), wanted.split, str(spot.path), what)
            return None if chosen is None else (column, chosen)
        if usual and len(values) > 1:
            some = sorted(values)
            raise Doubt(
                f"{spot.path} has a column '{column}', and it is unclear which splits "
                f"{', '.join(some[:5])} are. Say which to train on: --split {some[0]} trains on "
                f"the rows of {some[0]} and leaves the others alone; --split none takes all rows."
            )
        flags = values <= {"0", "1", "0.0", "1.0", "True", "False", "true", "false"}
        if flags and split_of_name(column) is not None:
            raise Doubt(
                f"{spot.path} has a column '{column}', which seems to say the split of a row. "
                "Write a column split with train, val and test instead, or take all rows: "
                "--split none."
            )
    if wanted.split is not None:
        raise Doubt(f"--split {wanted.split}: no column of {spot.path} says a split.")
    return None


# ---------------------------------------------------------------- rows


def _broken_rows(gathered: Gathered, path: Path, found: Found) -> None:
    broken, whole = gathered.broken, len(gathered.texts)
    if not broken:
        return
    if len(broken) > 0.1 * (whole + len(broken)):
        raise BrokenInput(
            f"{path} has {len(broken):,} broken rows beside {whole:,} pictures: too many to pass "
            f"over. The first: {broken[0]}"
        )
    found.data["broken_rows"] = len(broken)
    found.notes.append(f"{len(broken)} broken row{'s' * (len(broken) > 1)}: {broken[0]}")
