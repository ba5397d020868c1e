"""Words for classes that are called by numbers; tables with several classes a picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from radapter.data.names_file import may_begin_with_one, names_for
from radapter.errors import BrokenInput, UsageError
from radapter.init.found import Found, Spot
from radapter.init.splits import Doubt

FILES = (
    "classes.txt", "class_names.txt", "classnames.txt", "labels.txt", "class_index.json",
    "imagenet_class_index.json", "classes.json", "class_names.json", "labels.json",
    "label_map.json", "LOC_synset_mapping.txt", "words.txt",
)  # fmt: skip


def names_file_for(spot: Spot, ids: list[str], found: Found) -> None:
    """Put a file that names all the ids into the data section, if there is one: in the folder of
    the set or the one above."""
    folder = spot if spot.path.is_dir() else spot.above
    above = Spot(str(Path(folder.written).parent), folder.path.resolve().parent)
    for place in (folder, above):
        for name in FILES:
            path = place.path / name
            if not path.is_file():
                continue
            try:
                words, unsure = names_for(ids, path), may_begin_with_one(ids, path)
            except BrokenInput as error:
                found.notes.append(f"names of classes are not taken from {path}: {error}")
                continue
            if unsure:
                first = min(ids, key=int)
                raise Doubt(
                    f"{path} has names without numbers, and the classes begin with {first}: its "
                    f"first name may be that of class 0 or of class 1. Write the number before "
                    f"each name, such as '{first} {words[0]}'."
                )
            found.data["class_names_in"] = (Path(place.written) / name).as_posix()
            example = f"class {ids[0]} is called '{words[0]}', {ids[-1]} '{words[-1]}'"
            found.taken["class_names_in"] = example
            found.notes.append(f"names of classes are taken from {path}: {example}.")
            return


def refuse_several_classes(path: Path, column: str, cells: list[str]) -> None:
    """Raises UsageError where cells hold lists of classes, such as "cat|dog"."""
    for separator in "|;,":
        parts = {cell: [p.strip() for p in cell.split(separator)] for cell in cells}
        seen = Counter(part for some in parts.values() for part in set(some))
        # "red, square" may be one class: with commas each part has to be a class elsewhere too.
        known = set(cells) if separator == "," else {part for part in seen if seen[part] > 1}
        lists = [c for c, some in parts.items() if len(some) > 1 and known.issuperset(some)]
        if lists:
            raise UsageError(
                f"{path} has several classes in one cell of '{column}' ('{lists[0]}'). "
                "Training takes one class a picture: keep one in each cell."
            )
