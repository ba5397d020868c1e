"""Caption files in Karpathy's form, COCO's, or that of a list of records."""

from __future__ import annotations

from radapter.data.json_files import read_object
from radapter.data.sources.coco_captions import is_coco_captions
from radapter.data.sources.karpathy import is_karpathy
from radapter.errors import UsageError
from radapter.init.found import Found, Spot, Wanted
from radapter.init.splits import choose

PATTERNS = ("dataset_*.json", "captions_*.json", "annotations/dataset_*.json",
            "annotations/captions_*.json")  # fmt: skip


def captions_folder(spot: Spot, wanted: Wanted) -> Found | None:
    """Karpathy's file, or else COCO's own, in a folder or its `annotations`."""
    for pattern in PATTERNS:
        files = [p.relative_to(spot.path).as_posix() for p in sorted(spot.path.glob(pattern))]
        if not files:
            continue
        chosen = choose(files, wanted.split, str(spot.path), "caption files")
        if chosen is None and len(files) > 1:
            names = ", ".join(files[:5])
            raise UsageError(f"{spot.path} has several caption files: name one of them ({names}).")
        if chosen is None:
            return captions_file(spot.below(files[0]), wanted)
        found = captions_file(spot.below(chosen.train), wanted)
        return found.choose(chosen, lambda name: {"path": spot.below(name).written})
    return None


def captions_file(spot: Spot, wanted: Wanted) -> Found:
    """A file of Karpathy's or COCO's form."""
    content = read_object(spot.path, "data.path")
    karpathy = is_karpathy(content)
    if not karpathy and not is_coco_captions(content):
        raise UsageError(
            f"{spot.path} is neither a caption file in Karpathy's or COCO's form nor a list of "
            'records ([{"image": "a.jpg", "caption": "..."}, ...]).'
        )
    data = {"source": "karpathy" if karpathy else "coco-captions", "path": spot.written}
    if wanted.pictures is not None:
        data["root"] = wanted.pictures.written
    data["protocol"] = "vse++"
    if not karpathy:
        return Found("a caption file in COCO's form", data)
    found = Found("the train split of a caption file in Karpathy's form", data)
    found.own_validation = any(image.get("split") == "val" for image in content["images"])
    if not found.own_validation:
        found.notes.append("the file has no val split, so nothing is held out.")
    return found
