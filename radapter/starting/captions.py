"""Caption files in Karpathy's form, COCO's, or that of a list of records."""

from __future__ import annotations

from typing import Any

from radapter.data.captions import read_json
from radapter.data.sources.coco_captions import is_coco_captions
from radapter.data.sources.karpathy import is_karpathy
from radapter.errors import UsageError
from radapter.starting.found import Found, Spot, Wanted
from radapter.starting.splits import choose

PATTERNS = ("dataset_*.json", "captions_*.json", "annotations/dataset_*.json",
            "annotations/captions_*.json")  # fmt: skip


def captions_folder(spot: Spot, wanted: Wanted) -> Found | None:
    """Karpathy's file, or else COCO's own, in a folder or its `annotations`."""
    for pattern in PATTERNS:
        files = {
            path.relative_to(spot.path).as_posix(): path for path in sorted(spot.path.glob(pattern))
        }
        if not files:
            continue
        chosen = choose(list(files), wanted.split, str(spot.path), "caption files")
        if chosen is None and len(files) > 1:
            names = ", ".join(list(files)[:5])
            raise UsageError(f"{spot.path} has several caption files: name one of them ({names}).")
        found = captions_file(spot.below(chosen.train if chosen else next(iter(files))), wanted)
        return found.choose(chosen, lambda n: {"path": spot.below(n).written}) if chosen else found
    return None


def captions_file(spot: Spot, wanted: Wanted) -> Found:
    """A file of Karpathy's or COCO's form.

    Raises:
        UsageError: it is of neither.
    """
    content = read_json(spot.path)
    where = {} if wanted.pictures is None else {"root": wanted.pictures.written}
    if is_karpathy(content):
        return _karpathy(spot, content, where)
    if is_coco_captions(content):
        data = {"source": "coco-captions", "path": spot.written} | where | {"protocol": "vse++"}
        return Found("a caption file in COCO's form", data)
    raise UsageError(
        f"{spot.path} is no caption file of Karpathy's or COCO's form, and no list of records "
        '([{"image": "a.jpg", "caption": "..."}, ...]).'
    )


def _karpathy(spot: Spot, content: dict[str, Any], where: dict[str, str]) -> Found:
    data = {"source": "karpathy", "path": spot.written} | where | {"protocol": "vse++"}
    splits = {image.get("split") for image in content["images"]}
    what = "the train split of a caption file in Karpathy's form"
    found = Found(what, data, own_validation="val" in splits)
    if not found.own_validation:
        found.notes.append("the file has no val split, so nothing is held out.")
    return found
