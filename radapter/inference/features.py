"""Features of many pictures in one safetensors file, made in parts so that it can be stopped.

    features     [n, dim], float32, unit norm
    names        uint8: the pictures' names, UTF-8, one after the other
    name_ends    [n], int64: where each name ends in `names`
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

from radapter.data.pictures import Pictures
from radapter.errors import BrokenInput
from radapter.inference.encoding import encode_pictures
from radapter.inference.opening import OpenModel
from radapter.models.checkpoints import check_safetensors
from radapter.names import from_bytes, to_bytes
from radapter.run import clear_temporary, write_atomic

SCHEMA_VERSION = 1
PART = 1024
"""Pictures in a part: 2 MB of 512 dimensions, and the most that a kill can lose"""
IDENTITY = {
    "weights_hash": "another model",
    "data": "other pictures",
    "preprocessing": "other preprocessing",
    "runtime": "another runtime",
    "part": "parts of another size",
}
"""Facts that a file stands for; what it means if they differ."""
FACTS = (*IDENTITY, "schema_version", "model", "dim", "count", "skipped")
"""`data` is `Pictures.fingerprint()`; `skipped` is how many pictures could not be read."""


def embed(
    model: OpenModel,
    pictures: Pictures,
    out: Path | str,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], list[str]]:
    """Write the features of all pictures to `out`; go on where an earlier call was stopped.

    On one machine's CPU the file is the same bit for bit, wherever it was stopped.

    Args:
        on_progress: called with pictures done and pictures in all, first with those that were
            done before.

    Returns:
        The facts in the file's metadata, and a message for every picture that could not be read
        and is not in the file. A file that is there already, whole and of the same model, data
        and preprocessing, is left as it is (without messages: `skipped` has their number).

    Raises:
        BrokenInput: `out`, or what an earlier call left of it, is of another model, data or
            preprocessing; no picture at all can be read; another process is writing `out`.
    """
    out = Path(out)
    wanted = _facts(model, pictures)
    parts = out.with_name(out.name + ".parts")
    if out.exists():
        facts = read_facts(out)
        _same(facts, wanted, out)
        shutil.rmtree(parts, ignore_errors=True)  # left by a kill after the last rename
        return facts, []
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
            chunks, good, messages = [], [], []
            for batch in encode_pictures(model, pictures, place, workers=workers):
                chunks += [batch.features] if batch.indices else []
                good += batch.indices
                messages += list(batch.failed.values())
                done += len(batch.indices) + len(batch.failed)
                on_progress(done, len(pictures))
            features = torch.cat(chunks) if chunks else torch.empty(0, 0)
            write_atomic(paths[i], _part(features, [pictures.keys[j] for j in good], messages))
        skipped = [message for path in paths for message in _metadata(path)["messages"]]
        facts = _join(paths, out, parts / ".joined.tmp", wanted | {"skipped": len(skipped)})
    shutil.rmtree(parts, ignore_errors=True)
    return facts, skipped


def _facts(model: OpenModel, pictures: Pictures) -> dict[str, Any]:
    runtime = model.runtime
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "weights_hash": model.weights_hash,
        "preprocessing": model.preprocessing,
        "runtime": f"{runtime.name}, {runtime.device}, {runtime.precision}",
        "data": pictures.fingerprint(),
        "part": PART,
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
        raise BrokenInput(f"{path} is damaged: remove {parts} and begin anew.") from None
    _same(plan, wanted, parts)
    return dict(plan)


def _part(features: Tensor, names: list[str], messages: list[str]) -> bytes:
    encoded = [to_bytes(name) for name in names]
    ends = list(itertools.accumulate(map(len, encoded)))
    tensors = {
        "features": features.float().contiguous(),
        "names": torch.from_numpy(np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()),
        "name_ends": torch.tensor(ends, dtype=torch.int64),
    }
    metadata = {"radapter": json.dumps({"messages": messages, "count": len(names)})}
    return to_safetensors(tensors, metadata=metadata)


def _metadata(path: Path) -> dict[str, Any]:
    return dict(json.loads(check_safetensors(path)["radapter"]))


def _is_whole(path: Path, size: int) -> bool:
    """Whether a part is there with all its pictures; one that is damaged is made again."""
    try:
        facts = _metadata(path)
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
        "features": ("F32", [count, dim], 4 * count * dim),
        "names": ("U8", [name_bytes], name_bytes),
    }
    header: dict[str, Any] = {"__metadata__": {"radapter": json.dumps(facts, sort_keys=True)}}
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
        facts = json.loads(check_safetensors(path)["radapter"])
        version, count, dim = (int(facts[key]) for key in ("schema_version", "count", "dim"))
        facts["weights_hash"], facts["data"], facts["preprocessing"]
    except (KeyError, TypeError, ValueError):
        raise BrokenInput(f"{path} is no features file: `radapter embed` makes one.") from None
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
            name = names[first : int(ends[row : row + 1][0])].numpy().tobytes()
            found.append(from_bytes(name))
        return found
