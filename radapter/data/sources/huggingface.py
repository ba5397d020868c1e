"""Sets of Hugging Face `datasets`, saved in a folder or fetched by name; pictures decoded lazily.

Sets that come as a program are not run: `datasets` 4 and later cannot, earlier ones are refused.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field, model_validator

from radapter.data.class_names import class_name, gathered
from radapter.data.dataset import Dataset
from radapter.data.pixels import Reading, read_picture
from radapter.data.settings import HeldOut, located
from radapter.data.stores import Stamp, file_stamp
from radapter.errors import BrokenInput, RadapterError, UsageError, nearest, not_installed

SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder: of a set with splits, and of one split."""


class HuggingFaceData(HeldOut):
    """A set of Hugging Face `datasets`, from a folder or by its name on the hub (extra `hf`)."""

    source: Literal["huggingface"]
    named_by = ("path", "config", "dataset_split")
    path: Annotated[str, Field(examples=["AI-Lab-Makerere/beans"])]
    """A folder that `save_to_disk` wrote, a folder of the set's data files, or a name on the
    hub."""
    config: str | None = None
    """The configuration. `null`: the set has only one."""
    dataset_split: str | None = None
    """The set's own split that is taken; `hold_out` holds out a share of it. `null`: the set has
    only one."""
    image_column: str = "image"
    """The column of the pictures."""
    text_column: str | None = None
    """The column of the captions, a text or a list of texts for each picture. `null`: there are
    none."""
    label_column: str | None = Field(default=None, examples=["labels"])
    """The column of the classes: a ClassLabel, whose names are the class names, or names. `null`:
    there are none."""

    @model_validator(mode="after")
    def _texts_or_labels(self) -> HuggingFaceData:
        if self.text_column is None and self.label_column is None:
            raise ValueError("text_column and label_column are both missing: name one of them")
        return self

    own_splits = True

    def open(self) -> Dataset:
        """The rows of a split: a picture with a class, captions, or both. Keys are row numbers."""
        datasets = package()
        rows = _load(datasets, self)
        source = f"huggingface {self.path}"
        _check_column(rows, self.image_column, source)
        kind = rows.features[self.image_column]
        if not as_pictures(datasets, kind):
            raise BrokenInput(f"{source}: column '{self.image_column}' has no pictures: {kind}.")
        labels, class_names = _labels(datasets, rows, self.label_column, source)
        pictures = rows.select_columns([self.image_column])
        pictures = pictures.cast_column(self.image_column, datasets.Image(decode=False))
        store = Rows(source, pictures, self.image_column, self.reading())
        width = len(str(len(rows)))
        return Dataset(
            source=f"{source}, {self.dataset_split or 'its one split'}",
            keys=[f"row {i:0{width}}" for i in range(len(rows))],
            read=store.read,
            labels=labels,
            class_names=class_names,
            captions=_captions(rows, self.text_column, source),
            groups=list(range(len(rows))),
            stamp=store.stamp,
        )


def as_pictures(datasets: Any, feature: Any) -> bool:
    """Whether a column holds pictures: as the package writes them, or as bytes that nothing says to
    be pictures, as in Parquet files of other programs."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return isinstance(feature, datasets.Image) or str(getattr(feature, "dtype", "")) == "binary"


def package() -> Any:
    """The package datasets.

    Raises:
        MissingDependency: it is not installed, or is one that would run programs of a set.
    """
    try:
        import datasets
    except ImportError:
        raise not_installed("`source: huggingface`", "datasets", "hf") from None
    if int(datasets.__version__.split(".")[0]) < 4:
        raise not_installed("`source: huggingface`", "datasets>=4", "hf")
    return datasets


def _load(datasets: Any, settings: HuggingFaceData) -> Any:
    """The rows of the split that is wanted."""
    folder = located(settings, settings.path)
    local = folder.is_dir()
    if not local and (settings.path.count("/") > 1 or settings.path.startswith((".", "/", "~"))):
        raise BrokenInput(f"No such folder: {folder}. Correct data.path, or give --data-root.")
    try:
        if local and any((folder / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(str(folder))
        elif local:
            loaded = datasets.load_dataset(str(folder), settings.config)
        else:
            loaded = datasets.load_dataset(settings.path, settings.config)
        return _split(datasets, loaded, settings)
    except RadapterError:
        raise
    except Exception as error:  # of many kinds, from pyarrow, fsspec and the hub's client
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        what = folder if local else f"Hugging Face set '{settings.path}'"
        hint = (
            ""
            if local
            else " Without a network, save it elsewhere with save_to_disk, bring the folder here "
            "and set data.path to it."
        )
        raise BrokenInput(f"{what} cannot be loaded: {reason.rstrip('.')}.{hint}") from None


def _split(datasets: Any, loaded: Any, settings: HuggingFaceData) -> Any:
    wanted = settings.dataset_split
    if not isinstance(loaded, datasets.DatasetDict):
        own = str(loaded.split) if loaded.split else None
        if wanted and own and wanted != own:
            raise BrokenInput(f"{settings.path} is the split {own}, not {wanted}.")
        return loaded
    if wanted is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if wanted is None:
        have = ", ".join(loaded)
        raise UsageError(f"{settings.path} has several splits: set data.dataset_split ({have}).")
    if wanted not in loaded:
        raise BrokenInput(
            f"{settings.path} has no split '{wanted}'.{nearest(wanted, list(loaded))}"
        )
    return loaded[wanted]


def _check_column(rows: Any, column: str, source: str) -> None:
    if column not in rows.features:
        hint = nearest(column, list(rows.features))
        raise BrokenInput(f"{source} has no column '{column}'.{hint}")


def _labels(
    datasets: Any, rows: Any, column: str | None, source: str
) -> tuple[list[int], list[str]]:
    """A class number for each row, and the names; `_` in a ClassLabel's name is a space."""
    if column is None:
        return [], []
    _check_column(rows, column, source)
    values = rows.select_columns([column])[:][column]
    feature = rows.features[column]
    if isinstance(feature, datasets.ClassLabel):
        if any(value is None or value < 0 for value in values):
            raise BrokenInput(f"{source}: column '{column}' has rows without a class.")
        return list(values), [class_name(name) for name in feature.names]
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise BrokenInput(
            f"{source}: column '{column}' has no class names: {feature}. It must be a ClassLabel, "
            "or texts."
        )
    spelled = sorted({value.strip() for value in values})
    names, numbers = gathered(spelled)
    number = dict(zip(spelled, numbers, strict=True))
    return [number[value.strip()] for value in values], names


def _captions(rows: Any, column: str | None, source: str) -> list[list[str]]:
    if column is None:
        return []
    _check_column(rows, column, source)
    captions = []
    for i, value in enumerate(rows.select_columns([column])[:][column]):
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            kind = rows.features[column]
            raise BrokenInput(f"{source}: column '{column}' has no texts in row {i}: {kind}.")
        kept = [text.strip() for text in texts if text.strip()]
        if not kept:
            raise BrokenInput(f"{source}: row {i} has no text in column '{column}'.")
        captions.append(kept)
    return captions


class Rows:
    """Pictures in the column of a set of `datasets`: their bytes, or paths of files."""

    def __init__(self, source: str, rows: Any, column: str, reading: Reading):
        """Of the pictures nothing but their lengths is read."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self.source, self.rows, self.column, self.reading = source, rows, column, reading
        stored = pa.chunked_array(rows.with_format("arrow")[:][column])
        self.sizes: list[int | None] = pc.binary_length(
            pc.struct_field(stored, "bytes")
        ).to_pylist()
        self.paths: list[str | None] = pc.struct_field(stored, "path").to_pylist()
        files = [file_stamp(Path(file["filename"])) for file in rows.cache_files]
        self.changed = (
            max((f[1] for f in files), default=-1),
            max((f[2] for f in files), default=-1),
        )
        """When the files of the set were last changed"""

    def read(self, index: int) -> Image.Image:
        stored = self.rows[index][self.column]
        if stored is None:
            raise BrokenInput(f"Picture cannot be read: {self.source}: row {index} has none.")
        if stored["bytes"] is None:
            return read_picture(Path(stored["path"]), reading=self.reading)
        name = f"{self.source}: row {index} ({stored['path'] or 'no file name'})"
        return read_picture(io.BytesIO(stored["bytes"]), name, self.reading)

    def stamp(self, index: int) -> Stamp:
        size, path = self.sizes[index], self.paths[index]
        if size is not None:
            return size, *self.changed
        return file_stamp(Path(path)) if path else (-1, -1, -1)
