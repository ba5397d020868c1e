"""Features of many pictures or clips in one safetensors file, made in parts: it can be stopped.

    features     [n, dim], float32, unit norm
    names        uint8: the pictures' names, UTF-8, one after the other
    name_ends    [n], int64: where each name ends in `names`
    stamps       [n, 2], int64: size of each picture in bytes, and when it changed, in ns
    metadata     one entry `radapter`, JSON: see `FACTS`

Names are a tensor and no metadata, because metadata is read whole by whoever opens the file: of a
million names that is 60 MB to parse, where a search needs ten of them.

While it is made, FILE.parts/ holds `plan.json` and a small file of the same form for every `PART`
pictures, each written under a temporary name and renamed. At the end they are copied into FILE one
after the other, so memory holds one part, whatever the number of pictures.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from radapter.data.clip_pieces import Pieces
from radapter.data.left_out import merged, summary_of
from radapter.data.pictures import Pictures
from radapter.data.pixels import without_prefix
from radapter.errors import BrokenInput
from radapter.evaluation.encoding import encode_batches
from radapter.files import clear_temporary, facts_metadata, radapter_facts, write_atomic
from radapter.names import from_bytes, to_bytes
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel

SCHEMA_VERSION = 1
PART = 1024
"""Pictures in a part: 2 MB of 512 dimensions, and the most that a kill can lose"""
IDENTITY = {
    "weights_hash": "another model",
    "data": "other pictures",
    "preprocessing": "other preprocessing",
    "reading": "another way of reading pictures",
    "runtime": "another runtime",
    "part": "parts of another size",
}
"""Facts that a file stands for; what it means if they differ."""
FACTS = (*IDENTITY, "schema_version", "model", "dim", "count", "skipped", "left_out", "root")
"""`data` is `Pictures.fingerprint()`; `reading` is what is done about orientation and transparency;
`skipped` is how many pictures could not be read; `left_out` what was passed over, by reason; `root`
is the folder that names are relative to, as seen from the file's. Earlier files have neither
`root` nor `stamps`, nor `reading` and `left_out`."""


def embed(
    model: OpenModel,
    pictures: Pictures | Pieces,
    out: Path | str,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], list[str]]:
    """Write the features of all pictures to `out`; go on where an earlier call was stopped.

    On one machine's CPU the file is the same bit for bit, wherever it was stopped. If `out` is
    there with features of other pictures too, those of pictures that did not change are kept.

    Args:
        on_progress: called with pictures done and pictures in all, first with those that were
            done before.

    Returns:
        The facts in the file's metadata, with `kept`, how many features were there before; and a
        message for every picture that could not be read and is not in the file. A file that is
        there already, whole and of the same model, data and preprocessing, is left as it is
        (without messages: `skipped` has their number).

    Raises:
        BrokenInput: `out`, or what an earlier call left of it, is of another model or
            preprocessing, or has none of these pictures; no picture at all can be read; another
            process is writing `out`.
    """
    out = Path(out)
    wanted = _facts(model, pictures, out.parent)
    kept: dict[int, int] = {}
    parts = out.with_name(out.name + ".parts")
    if out.exists():
        facts = read_facts(out)
        kept = {} if facts["data"] == wanted["data"] else _unchanged(out, pictures)
        _same(facts | ({"data": wanted["data"]} if kept else {}), wanted, out)
        if not kept:
            shutil.rmtree(parts, ignore_errors=True)  # left by a kill after the last rename
            return facts | {"kept": facts["count"]}, []
    parts.mkdir(parents=True, exist_ok=True)
    with _lock(parts, out):
        clear_temporary(parts)
        if (parts / "plan.json").exists():
            wanted = _read_plan(parts, wanted)
        else:
            write_atomic(parts / "plan.json", json.dumps(wanted, indent=2) + "\n")
        paths = [parts / f"{i:05d}.safetensors" for i in range(-(-len(pictures) // PART))]
        sizes = [min(PART, len(pictures) - i * PART) for i in range(len(paths))]
        missing = [i for i, path in enumerate(paths) if not _is_whole(path, sizes[i])]
        done = len(pictures) - sum(sizes[i] for i in missing)
        on_progress(done, len(pictures))
        for i in missing:
            place = range(i * PART, i * PART + sizes[i])
            features = _rows(out, {j: kept[j] for j in place if j in kept})
            done += len(features)
            messages = []
            new = [j for j in place if j not in kept]
            for batch in encode_batches(
                model.runtime,
                model.preprocess,
                pictures.read,
                new,
                batch_size=max(1, BATCH // pictures.frames),
            ):
                features |= dict(zip(batch.indices, batch.features, strict=True))
                messages += list(batch.failed.values())
                done += len(batch.indices) + len(batch.failed)
                on_progress(done, len(pictures))
            write_atomic(paths[i], _part(features, pictures, messages))
        skipped = [message for path in paths for message in radapter_facts(path)["messages"]]
        left_out = merged(pictures.left_out, {"broken": without_prefix(skipped)})
        more = {"skipped": len(skipped), "left_out": summary_of(left_out)}
        facts = _join(paths, out, parts / ".joined.tmp", wanted | more)
    shutil.rmtree(parts, ignore_errors=True)
    return facts | {"kept": len(kept)}, skipped


def _facts(model: OpenModel, pictures: Pictures | Pieces, folder: Path) -> dict[str, Any]:
    runtime = model.runtime
    try:
        root = os.path.relpath(pictures.root, folder)
    except ValueError:  # on another drive
        root = str(pictures.root.absolute())
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "weights_hash": model.weights_hash,
        "preprocessing": model.preprocessing,
        "reading": pictures.reading(),
        "runtime": f"{runtime.name}, {runtime.device}, {runtime.precision}",
        "data": pictures.fingerprint(),
        "part": PART,
        "root": root,
    }


def _same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raise BrokenInput if what is at `path` stands for something else than what is wanted."""
    reasons = []
    for key, reason in IDENTITY.items():
        ours, theirs = wanted[key], found.get(key)
        if ours != theirs:
            if isinstance(ours, dict) and isinstance(theirs, dict):
                changed = [k for k in ours if ours[k] != theirs.get(k)]
                ours, theirs = ({k: d.get(k) for k in changed} for d in (ours, theirs))
            reasons.append(f"{reason} ({_short(theirs)}, now {_short(ours)})")
    if reasons:
        raise BrokenInput(
            f"{path} was made with {' and '.join(reasons)}. Remove it, or give another --out."
        )


def _short(value: Any) -> str:
    """A hash by its first digits, anything else as it is."""
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text[:16] if len(text) == 64 else text


@contextlib.contextmanager
def _lock(parts: Path, out: Path) -> Iterator[None]:
    try:
        with FileLock(parts / ".lock", timeout=0):
            yield
    except Timeout:
        raise BrokenInput(
            f"{out} is being written by another process. Wait until it is done."
        ) from None


# ---------------------------------------------------------------- parts


def _read_plan(parts: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    path = parts / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        plan["weights_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BrokenInput(f"{path} is damaged: remove {parts} and start again.") from None
    _same(plan, wanted, parts)
    return wanted | plan


def _unchanged(path: Path, pictures: Pictures | Pieces) -> dict[int, int]:
    """{picture: row in the file} of those that are there and did not change since."""
    with safe_open(path, framework="pt") as file:
        if "stamps" not in file.keys():  # noqa: SIM118
            return {}
        names, ends = file.get_tensor("names").numpy().tobytes(), file.get_tensor("name_ends")
        stamps = file.get_tensor("stamps").tolist()
    places = itertools.pairwise([0, *ends.tolist()])
    row_of = {names[start:end]: row for row, (start, end) in enumerate(places)}
    rows = {j: row_of.get(to_bytes(key)) for j, key in enumerate(pictures.keys)}
    return {
        j: row
        for j, row in rows.items()
        if row is not None and stamps[row] == list(pictures.stamp(j))
    }


def _rows(path: Path, rows: dict[int, int]) -> dict[int, Tensor]:
    """Features [dim] of some pictures from their rows in a file."""
    if not rows:
        return {}
    with safe_open(path, framework="pt") as file:
        features = file.get_slice("features")
        return {j: features[row : row + 1][0] for j, row in rows.items()}


def _part(features: dict[int, Tensor], pictures: Pictures | Pieces, messages: list[str]) -> bytes:
    order = sorted(features)
    names = [to_bytes(pictures.keys[j]) for j in order]
    ends = list(itertools.accumulate(map(len, names)))
    rows = torch.stack([features[j] for j in order]) if order else torch.empty(0, 0)
    stamps = torch.tensor([pictures.stamp(j) for j in order], dtype=torch.int64)
    tensors = {
        "features": rows.float().contiguous(),
        "stamps": stamps.reshape(len(order), 2),
        "names": torch.from_numpy(np.frombuffer(b"".join(names), dtype=np.uint8).copy()),
        "name_ends": torch.tensor(ends, dtype=torch.int64),
    }
    facts = {"messages": messages, "count": len(names)}
    return to_safetensors(tensors, metadata=facts_metadata(facts))


def _is_whole(path: Path, size: int) -> bool:
    """Whether a part is there with all its pictures; one that is damaged is made again."""
    try:
        facts = radapter_facts(path)
        with safe_open(path, framework="pt") as part:
            if "stamps" not in part.keys():  # noqa: SIM118 (of an earlier version)
                return False
        return int(facts["count"]) + len(facts["messages"]) == size
    except (BrokenInput, KeyError, ValueError, TypeError):
        return False


def _join(paths: list[Path], out: Path, temporary: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Copy the parts into one file, one part in memory at a time.

    safetensors' own writer wants all tensors in memory, so the header is written here: eight bytes
    with its length, then JSON with type, shape and place of each tensor, padded to eight bytes.
    """
    count, dim, name_bytes = 0, 0, 0
    for path in paths:
        with safe_open(path, framework="pt") as part:
            rows, width = part.get_slice("features").get_shape()
            count, dim = count + rows, max(dim, width)
            name_bytes += part.get_slice("names").get_shape()[0]
    if not count:
        raise BrokenInput(
            f"None of the {facts['skipped']} pictures can be read; {out} was not written."
        )
    facts = {key: (facts | {"count": count, "dim": dim})[key] for key in FACTS}
    places = {  # eight-byte numbers first, so that every tensor is aligned
        "name_ends": ("I64", [count], 8 * count),
        "stamps": ("I64", [count, 2], 16 * count),
        "features": ("F32", [count, dim], 4 * count * dim),
        "names": ("U8", [name_bytes], name_bytes),
    }
    header: dict[str, Any] = {"__metadata__": facts_metadata(facts)}
    start = 0
    for name, (dtype, shape, size) in places.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in places:
                before = 0
                for path in paths:
                    with safe_open(path, framework="pt") as part:
                        tensor = part.get_tensor(name)
                        if name == "name_ends":
                            tensor = tensor + before
                            before += part.get_slice("names").get_shape()[0]
                        file.write(tensor.numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    except OSError as error:
        error.filename = error.filename or str(out)  # a full disk does not say where it is
        raise
    return facts


# ---------------------------------------------------------------- reading


def read_facts(path: Path | str) -> dict[str, Any]:
    """The facts of a features file, its form checked.

    Raises:
        BrokenInput: it is missing, damaged, truncated, or no features file.
    """
    path = Path(path)
    if not path.is_file():
        raise BrokenInput(
            f"No features file at {path}. Type first: radapter embed FOLDER --out {path}"
        )
    try:
        facts = radapter_facts(path)
        version, count, dim = (int(facts[key]) for key in ("schema_version", "count", "dim"))
        facts["weights_hash"], facts["data"], facts["preprocessing"]
    except (KeyError, TypeError, ValueError):
        raise BrokenInput(f"{path} is not a features file: `radapter embed` writes one.") from None
    if version > SCHEMA_VERSION:
        raise BrokenInput(
            f"{path} has schema version {version}; this radapter reads up to {SCHEMA_VERSION}. "
            "Upgrade radapter, or embed again with this one."
        )
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    if shapes.get("features") != [count, dim] or shapes.get("name_ends") != [count]:
        raise BrokenInput(f"{path} is damaged: its tensors are not those it names. Embed again.")
    return dict(facts)


def chunks(path: Path | str, rows: int) -> Iterator[tuple[int, Tensor]]:
    """The features in pieces [<= rows, dim], each with the number of its first row."""
    with safe_open(path, framework="pt") as file:
        features = file.get_slice("features")
        for start in range(0, features.get_shape()[0], rows):
            yield start, features[start : start + rows]


def names_of(path: Path | str, rows: list[int]) -> list[str]:
    """The names of some rows; no others are read."""
    with safe_open(path, framework="pt") as file:
        ends, names = file.get_slice("name_ends"), file.get_slice("names")
        found = []
        for row in rows:
            first = int(ends[row - 1 : row][0]) if row else 0
            name = names[first : int(ends[row : row + 1][0])]
            found.append(from_bytes(name.numpy().tobytes()))
        return found
