"""What a folder or file holds: the data section of a recipe for it, by what lies there."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radapter.data.coco import is_coco_captions
from radapter.data.huggingface import SAVED
from radapter.data.karpathy import is_karpathy
from radapter.data.picture_files import read_json
from radapter.data.pixels import IMAGE_EXTENSIONS
from radapter.data.tables import gather
from radapter.errors import BrokenInput, UsageError
from radapter.recipe_data import ClipBenchmarkData, Data, TableData, located

TABLES = (".csv", ".tsv", ".tab", ".txt")
DELIMITERS = (",", "\t", "|", ";")
IMAGE_COLUMNS = (
    "filepath", "image", "path", "file", "filename", "file_name", "file_path", "image_path",
    "image_name", "image_file", "img", "img_path", "picture",
)  # fmt: skip
CAPTION_COLUMNS = ("title", "caption", "text", "comment", "description", "sentence")
CLASS_COLUMNS = ("label", "class", "category", "class_name", "label_name")
TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation", "dev"), ("test",)
EXPECTED = (
    "expected class folders (PATH/CLASS NAME/picture.jpg), a table of pictures and texts, tar "
    "shards, clip-benchmark's folders, a set saved by Hugging Face datasets, or a caption file in "
    "Karpathy's or COCO's form."
)


@dataclass
class Found:
    """What was recognised, in the words of a recipe."""

    what: str
    """Such as "class folders" """
    data: dict[str, Any]
    """The data section, but for what depends on the number of pictures"""
    validation: dict[str, Any] | None = None
    """What differs in a validation section, if the set has a split for it"""
    own_validation: bool = False
    """Whether the source has a validation split of its own"""
    notes: list[str] = field(default_factory=list)
    """What the user should know"""


def look(path: str, pictures: str | None = None) -> Found:
    """Recognise what lies at a path.

    Args:
        path: a folder or file; relative ones start from the data root, as in a recipe.
        pictures: the folder that a table or caption file names pictures in, if it is elsewhere.

    Raises:
        BrokenInput: there is nothing at the path, or it is damaged.
        UsageError: nothing that radapter reads was recognised.
    """
    written, place = _place(path)
    root = None if pictures is None else _place(pictures)[0]
    if place.is_file():
        found = _file(written, place, root)
    else:
        found = _folder(written, place, root)
    if root is not None and found.data["source"] not in ("table", "karpathy", "coco-captions"):
        raise UsageError(f"--pictures goes with a table or a caption file, and {path} is none.")
    return found


def _place(path: str) -> tuple[str, Path]:
    """The path for the recipe, and where it is."""
    place = located(Data(), path)
    if not place.exists() and Path(path).exists():  # there is a data root, and it is not below it
        place = Path(path).resolve()
        path = str(place)
    if not place.exists():
        raise BrokenInput(f"Nothing is at {place}.")
    return Path(path).as_posix(), place


def _file(written: str, place: Path, root: str | None) -> Found:
    if place.suffix.lower() == ".json":
        return _captions_file(written, place, root)
    if place.suffix.lower() == ".tar":
        return _shards(written, [place])
    if place.suffix.lower() in TABLES:
        return _table(written, place, root)
    raise UsageError(f"{place} is nothing that is read here: {EXPECTED}")


def _folder(written: str, place: Path, root: str | None) -> Found:
    inside = sorted(p for p in place.iterdir() if not p.name.startswith("."))
    if (place / "nshards.txt").is_file():
        return _clip_benchmark(Path(written).parent.as_posix(), place.parent, [place.name])
    splits = [p.name for p in inside if (p / "nshards.txt").is_file()]
    if splits:
        return _clip_benchmark(written, place, splits)
    if any((place / name).is_file() for name in SAVED):
        return _saved(written, place)
    shards = [p for p in inside if p.suffix.lower() == ".tar"]
    if shards:
        return _shards(written, shards)
    captions = _captions_folder(written, place, root)
    if captions is not None:
        return captions
    tables = [p for p in inside if p.suffix.lower() in TABLES[:3]]
    classes = [p for p in inside if p.is_dir() and _has_pictures(p)]
    if len(tables) > 1 and not classes:
        names = ", ".join(p.name for p in tables[:5])
        raise UsageError(f"{place} has several tables: name one of them ({names}).")
    if len(tables) == 1:
        try:
            return _table(f"{written}/{tables[0].name}", tables[0], root)
        except (UsageError, BrokenInput):
            if len(classes) < 2:
                raise
    return _class_folders(written, place, classes)


# ---------------------------------------------------------------- folders


def _has_pictures(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_EXTENSIONS for p in folder.rglob("*"))


def _one_of(names: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in names if name.lower() in wanted), None)


def _class_folders(written: str, place: Path, classes: list[Path]) -> Found:
    names = [p.name for p in classes]
    train = _one_of(names, TRAIN)
    if train and all(name.lower() in TRAIN + VALIDATION + TEST for name in names):
        found = Found("class folders", {"source": "folder", "root": f"{written}/{train}"})
        validation = _one_of(names, VALIDATION)
        if validation:
            found.validation = {"root": f"{written}/{validation}"}
        if _one_of(names, TEST):
            found.notes.append(f"{written}/test is left alone: it is for a last look.")
        return found
    if len(classes) < 2:
        have = f"pictures in {len(classes)} folder" if classes else "no pictures in folders"
        raise UsageError(f"{place} has {have}: {EXPECTED}")
    return Found("class folders", {"source": "folder", "root": written})


def _clip_benchmark(written: str, place: Path, splits: list[str]) -> Found:
    kind = place / "dataset_type.txt"
    retrieval = kind.is_file() and kind.read_text(encoding="utf-8").strip().lower() == "retrieval"
    split = _one_of(splits, TRAIN) or splits[0]
    data: dict[str, Any] = {"source": "clip-benchmark", "root": written, "dataset_split": split}
    data["task"] = "captions" if retrieval else "classification"
    found = Found("shards in clip-benchmark's layout", data)
    validation = _one_of(splits, VALIDATION)
    if validation and validation != split:
        found.validation = {"dataset_split": validation}
    if split.lower() in TEST:
        found.notes.append(
            f"the split {split} is all that is there: once trained on, it is no test any more."
        )
    if not retrieval:
        own = ClipBenchmarkData(source="clip-benchmark", root=written).own_prompts()
        if own is not None:
            data["templates"] = own
    return found


def _saved(written: str, place: Path) -> Found:
    """A set of Hugging Face datasets: its columns by their types."""
    from radapter.data.huggingface import package

    datasets = package()
    try:
        loaded = datasets.load_from_disk(str(place))
    except Exception as error:  # of many kinds
        raise BrokenInput(f"{place} cannot be loaded: {error}") from None
    data: dict[str, Any] = {"source": "huggingface", "path": written}
    found = Found("a set saved by Hugging Face datasets", data)
    rows = loaded
    if isinstance(loaded, datasets.DatasetDict):
        names = list(loaded)
        data["dataset_split"] = _one_of(names, TRAIN) or names[0]
        rows = loaded[data["dataset_split"]]
        validation = _one_of(names, VALIDATION)
        if validation and validation != data["dataset_split"]:
            found.validation = {"dataset_split": validation}
    kinds: dict[str, list[str]] = {"image": [], "class": [], "text": []}
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            kinds["image"].append(column)
        elif isinstance(feature, datasets.ClassLabel):
            kinds["class"].append(column)
        elif "string" in (str(getattr(f, "dtype", "")) for f in (feature, *_inner(feature))):
            kinds["text"].append(column)
    texts = [c for c in kinds["text"] if c.lower().rstrip("s") in CAPTION_COLUMNS] or kinds["text"]
    if not kinds["image"] or not (kinds["class"] or texts):
        raise UsageError(f"{place} has no pictures with classes or texts: {rows.features}.")
    data["image_column"] = kinds["image"][0]
    if kinds["class"]:
        data |= {"label_column": kinds["class"][0], "task": "classification"}
    else:
        data |= {"text_column": texts[0], "task": "captions"}
    return found


def _inner(feature: Any) -> list[Any]:
    inner = getattr(feature, "feature", None)
    return [] if inner is None else [inner]


def _shards(written: str, shards: list[Path]) -> Found:
    """One pattern for all of them: a range of numbers where they are one."""
    from radapter.data.tar_index import index_shard

    names = [p.name for p in shards]
    if Path(written).name == names[0]:
        pattern = written
    else:
        pattern = f"{written}/{_brace(names)}"
    samples = index_shard(shards[0]).samples
    first = samples[0].members if samples else {}
    data: dict[str, Any] = {"source": "shards", "shards": pattern}
    if ".cls" in first:
        data["task"] = "classification"
        names_file = shards[0].parent / "classnames.txt"
        if not names_file.is_file():
            raise UsageError(
                f"{shards[0]} has class numbers (.cls) without names: put them into "
                f"{names_file}, one a line, or copy `radapter recipes copy own-data` and list them "
                "in data.class_names."
            )
        text = names_file.read_text(encoding="utf-8").rstrip()
        data["class_names"] = [line.strip() for line in text.splitlines()]
    else:
        data["task"] = "captions"
    return Found(f"{len(shards)} WebDataset shard{'s' * (len(shards) > 1)}", data)


def _brace(names: list[str]) -> str:
    from braceexpand import braceexpand  # what webdataset expands patterns with

    if len(names) == 1:
        return names[0]
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    parts = [match.groups() for match in found if match]
    if len(parts) == len(names) and len({(begin, end) for begin, _, end in parts}) == 1:
        begin, _, end = parts[0]
        numbers = sorted((number for _, number, _ in parts), key=int)
        pattern = f"{begin}{{{numbers[0]}..{numbers[-1]}}}{end}"
        if sorted(braceexpand(pattern)) == sorted(names):
            return pattern
    return "{" + ",".join(names) + "}"


# ---------------------------------------------------------------- caption files


def _captions_folder(written: str, place: Path, root: str | None) -> Found | None:
    """Karpathy's file, or else COCO's own, in a folder or its `annotations`."""
    for pattern in ("dataset_*.json", "captions_*.json"):
        for folder in ("", "annotations/"):
            files = sorted((place / folder).glob(pattern))
            train = next((p for p in files if p.stem.startswith("captions_train")), None)
            validation = next((p for p in files if p.stem.startswith("captions_val")), None)
            if len(files) > 1 and not train:
                names = ", ".join(p.name for p in files[:5])
                raise UsageError(f"{place} has several caption files: name one of them ({names}).")
            if files:
                chosen = train or files[0]
                found = _captions_file(f"{written}/{folder}{chosen.name}", chosen, root)
                if train and validation:
                    found.validation = {"path": f"{written}/{folder}{validation.name}"}
                return found
    return None


def _captions_file(written: str, place: Path, root: str | None) -> Found:
    content = read_json(place)
    where = {} if root is None else {"root": root}
    if is_karpathy(content):
        data = {"source": "karpathy", "path": written} | where | {"protocol": "vse++"}
        splits = {image.get("split") for image in content["images"]}
        found = Found(
            "the train split of a caption file in Karpathy's form",
            data,
            own_validation="val" in splits,
        )
        if not found.own_validation:
            found.notes.append("the file has no val split, so nothing is held out.")
        return found
    if is_coco_captions(content):
        data = {"source": "coco-captions", "path": written} | where | {"protocol": "vse++"}
        return Found("a caption file in COCO's form", data)
    raise UsageError(f"{place} is no caption file of Karpathy's or COCO's form.")


# ---------------------------------------------------------------- tables


def _table(written: str, place: Path, root: str | None) -> Found:
    delimiter, header, row = _header(place)
    image = _column(header, IMAGE_COLUMNS) or next(
        (c for c, cell in zip(header, row, strict=False) if _is_picture(cell)), None
    )
    caption, label = _column(header, CAPTION_COLUMNS), _column(header, CLASS_COLUMNS)
    others = [column for column in header if column != image]
    text = caption or label or (others[0] if len(others) == 1 else None)
    if image is None or text is None:
        missing = "a picture in each row" if image is None else "a caption or class in each row"
        raise UsageError(
            f"{place} has the columns {', '.join(header) or '(none)'}, and none that is known for "
            f"{missing}. Name them in data.image_column and data.text_column of a recipe: "
            "`radapter recipes copy own-data`."
        )
    task = "captions" if text != label or caption else "classification"
    data: dict[str, Any] = {"source": "table", "path": written, "task": task}
    data |= {"image_column": image, "text_column": text}
    usual = "\t" if place.suffix.lower() in (".tsv", ".tab") else ","
    if delimiter != usual:
        data["delimiter"] = delimiter
    found = Found("a table", data)
    if caption and label:
        found.notes.append(
            f"for classes instead of captions: task: classification, text_column: {label}."
        )
    texts, _, broken = gather(place, TableData.model_validate(data))
    if broken:
        data["broken_rows"] = len(broken)
        found.notes.append(f"{len(broken)} broken row{'s' * (len(broken) > 1)}: {broken[0]}")
    where = _pictures_of_table(written, place, list(texts)[:20], root)
    if where is not None:
        data["root"] = where
    return found


def _header(place: Path) -> tuple[str, list[str], list[str]]:
    """The separator that makes the most of the first line, the columns, and the next row."""
    try:
        with open(place, newline="", encoding="utf-8-sig") as file:
            lines = [file.readline().rstrip("\r\n"), file.readline().rstrip("\r\n")]
    except UnicodeDecodeError as error:
        raise BrokenInput(f"{place} is no readable table: {error}") from None
    columns = {d: next(csv.reader([lines[0]], delimiter=d), []) for d in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda d: (_known(columns[d]), len(columns[d])))
    cells = [next(csv.reader([line], delimiter=delimiter), []) for line in lines]
    if delimiter == "|":
        cells = [[cell.strip() for cell in row] for row in cells]
    return delimiter, cells[0], cells[1]


def _known(header: list[str]) -> int:
    known = IMAGE_COLUMNS + CAPTION_COLUMNS + CLASS_COLUMNS
    return sum(name.strip().lower() in known for name in header)


def _column(header: list[str], known: tuple[str, ...]) -> str | None:
    by_name = {name.strip().lower(): name for name in reversed(header)}
    return next((by_name[name] for name in known if name in by_name), None)


def _is_picture(cell: str) -> bool:
    return cell.strip().lower().endswith(IMAGE_EXTENSIONS)


def _pictures_of_table(written: str, place: Path, names: list[str], root: str | None) -> str | None:
    """The folder for the recipe, None if it is the table's own.

    Raises:
        BrokenInput: none of the pictures is in the table's folder or one beside it.
    """
    if root is not None:
        places = {root: _place(root)[1]}
    else:
        above = Path(written).parent
        beside = sorted(p for p in place.parent.iterdir() if p.is_dir())
        places = {above.as_posix(): place.parent}
        places |= {(above / p.name).as_posix(): p for p in beside}
    counts = {key: sum((p / name).is_file() for name in names) for key, p in places.items()}
    best = max(counts, key=lambda key: counts[key])
    if names and not counts[best]:
        raise BrokenInput(
            f"None of the first {len(names)} pictures of {place} ({names[0]}, ...) is in "
            f"{' or '.join(str(p) for p in list(places.values())[:4])}. Name their folder with "
            "--pictures."
        )
    return None if root is None and best == Path(written).parent.as_posix() else best
