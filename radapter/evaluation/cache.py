"""Features that were computed before: of the pictures of a data set, of captions, of class names.

A file FOLDER/<sha256 of the key>.safetensors each, with the features as they were computed, fp32,
and one entry of metadata, `radapter`: JSON with the `key`, what `more` belongs to the features, and
`sha256` over all of it. The key says everything that the bits depend on: weights and architecture,
device, precision, versions, batches; of pictures names, sizes, times of change, how they are read,
preprocessing and a sample of pixels; of texts the texts and their token ids. So no entry is taken
for other pictures but where a file was changed with its size and the time of its content as they
were, within one tick of the file system's clock or on one that keeps no time of such a change.

Only PyTorch's features are kept. Those of an exported engine never are, as the engine is what an
evaluation verifies: whether it gives PyTorch's answers is measured each time. Its runtime has no
`identity`, so there is no key for it.

Files are written under a temporary name and renamed, so several processes may share a folder. A
damaged one is removed with a warning and computed anew. The least recently used go first when all
of them take more than a limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from radapter.data import Dataset
from radapter.data.clips import frames_of
from radapter.errors import BrokenInput, UsageError
from radapter.files import facts_metadata, write_atomic
from radapter.models import canonical_preprocessing
from radapter.names import to_bytes
from radapter.runtimes import Runtime
from radapter.versions import versions

ENCODER = 2
"""Of the key: to be raised when our own code changes the bits of features."""
DEFAULT_GB = 8.0
"""An alpha sweep of ViT-L over ImageNet and its shifts takes 6 GB"""
SAMPLE = 16
"""Pictures of a set whose pixels are part of the key"""
LEFT_BEHIND = 3600.0
"""Seconds after which a temporary file is one that a killed process left"""
Key = Mapping[str, Any]


@dataclass(frozen=True)
class Cache:
    """A folder of features that were computed before."""

    folder: Path
    limit: int
    """Bytes that all entries may take"""


def user_cache() -> Cache | None:
    """The user's cache: in RADAPTER_CACHE, else $XDG_CACHE_HOME/radapter, else ~/.cache/radapter;
    of RADAPTER_CACHE_GB gigabytes (`DEFAULT_GB`), None if that is 0.

    Raises:
        UsageError: RADAPTER_CACHE_GB is no number.
    """
    text = os.environ.get("RADAPTER_CACHE_GB") or str(DEFAULT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0.0 <= limit < math.inf:
        raise UsageError(f"RADAPTER_CACHE_GB takes gigabytes, such as 20, found '{text}'.")
    if own := os.environ.get("RADAPTER_CACHE"):
        folder = Path(own).expanduser()
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # Its specification has relative paths ignored.
        folder = Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "radapter"
    return Cache(folder, int(limit * 1e9)) if limit else None


# ---------------------------------------------------------------- entries


def read(cache: Cache | None, key: Key | None) -> tuple[Tensor, Any] | None:
    """The features of an entry and what was kept with them; None if there is no undamaged entry.

    None for no cache or no key too.
    """
    if cache is None or key is None:
        return None
    path = _path(cache, key)
    try:
        # Read at once: a mapped file that is cut short meanwhile would end the process.
        content = path.read_bytes()
    except OSError:
        return None
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = json.loads(header["__metadata__"]["radapter"])
        # A copy: how memory is aligned can change the last bits of what is computed from it.
        features = from_safetensors(content)["features"].clone()
        whole = facts["sha256"] == _digest(features, facts["key"], facts["more"])
        if not whole or facts["key"] != _plain(key):
            raise ValueError("its content does not match its hash")
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        warnings.warn(
            f"{path} was damaged ({error}) and is removed. Its features are computed again.",
            stacklevel=2,
        )
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the least recently used go first
    return features, facts["more"]


def write(cache: Cache | None, key: Key | None, features: Tensor, more: Any = None) -> None:
    """Keep features, [n, dim] in fp32, and remove what is over the limit.

    A folder that cannot be written to is a warning; features that alone are over the limit are not
    kept.
    """
    if cache is None or key is None:
        return
    features = features.contiguous()
    facts = {"key": _plain(key), "more": more, "sha256": _digest(features, _plain(key), more)}
    content = to_safetensors({"features": features}, metadata=facts_metadata(facts))
    if len(content) > cache.limit:
        return
    try:
        write_atomic(_path(cache, key), content)
        _trim(cache)
    except OSError as error:
        warnings.warn(f"Not cached in {cache.folder} (RADAPTER_CACHE): {error}", stacklevel=2)


def get_or_compute(cache: Cache | None, key: Key | None, compute: Callable[[], Tensor]) -> Tensor:
    """The features of an entry, computed and kept if there is none."""
    found = read(cache, key)
    if found is not None:
        return found[0]
    features = compute()
    write(cache, key, features)
    return features


def _path(cache: Cache, key: Key) -> Path:
    return cache.folder / f"{_sha256(json.dumps(_plain(key), sort_keys=True))}.safetensors"


def _plain(key: Key) -> Any:
    """As it is after JSON, which knows no tuples."""
    return json.loads(json.dumps(key))


def _digest(features: Tensor, key: Any, more: Any) -> str:
    facts = [key, more, str(features.dtype), list(features.shape)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(features.numpy().tobytes())
    return digest.hexdigest()


def _sha256(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(to_bytes(f"{text}\0"))
    return digest.hexdigest()


def _trim(cache: Cache) -> None:
    """Remove the least recently used until the limit is kept, and what killed processes left."""
    entries = []
    with os.scandir(cache.folder) as files:
        for file in files:
            # Another process may be removing the same ones.
            with contextlib.suppress(FileNotFoundError):
                facts = file.stat()
                if file.name.endswith(".safetensors"):
                    entries.append((facts.st_mtime_ns, facts.st_size, file.path))
                elif file.name.endswith(".tmp") and time.time() - facts.st_mtime > LEFT_BEHIND:
                    os.unlink(file.path)
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= cache.limit:
            break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= size


# ---------------------------------------------------------------- keys


def pictures_keys(
    runtimes: Sequence[Runtime],
    preprocess_cfg: Mapping[str, Any],
    pictures: Sequence[tuple[str, Dataset, int]],
    batch_size: int,
) -> list[Key | None]:
    """Each model's key of a data set's pictures; None if its features are not to be kept.

    No picture is opened but a sample, and that once for all models: names, sizes and times of
    change tell a picture that was replaced, and a sample of pixels tells sets apart that agree in
    all of these.

    Args:
        pictures: name, data set and place in it, in the order in which they are encoded.
        batch_size: pictures encoded together, which the last bits depend on.
    """
    wanted = any(runtime.identity is not None for runtime in runtimes)
    content = _content(pictures) if wanted else None
    return [
        None
        if content is None or runtime.identity is None
        else _of(runtime)
        | {
            "kind": "pictures",
            "preprocessing": canonical_preprocessing(preprocess_cfg),
            "batch_size": batch_size,
            "pictures": len(pictures),
            "content": content,
        }
        for runtime in runtimes
    ]


def _content(pictures: Sequence[tuple[str, Dataset, int]]) -> str | None:
    """sha256 of what is known of the pictures; None if they cannot be told from others."""
    digest = hashlib.sha256()
    # How they are read: the sample below may hold no picture in which that shows.
    digest.update(repr(sorted({str(sorted(d.protocol.items())) for _, d, _ in pictures})).encode())
    for name, dataset, index in pictures:
        if dataset.stamp is None:
            return None
        size, *changed = dataset.stamp(index)
        digest.update(to_bytes(f"{name}\0{size}\0{changed}\0"))
    for name, dataset, index in pictures[:: max(1, len(pictures) // SAMPLE)]:
        try:
            for picture in frames_of(dataset.read(index)):
                digest.update(to_bytes(f"{name}\0{picture.size}\0"))
                digest.update(picture.tobytes())
        except BrokenInput:
            digest.update(b"broken\0")
    return digest.hexdigest()


def texts_key(
    runtime: Runtime, tokenizer: Any, texts: Sequence[str], *, templates: Sequence[str] = ()
) -> Key | None:
    """The key of texts or, with templates, of a classifier's head; None if it is not kept."""
    if runtime.identity is None:
        return None
    prompts = tuple(t.replace("{}", text) for text in texts for t in templates or ("{}",))
    return _of(runtime) | {
        "kind": "head" if templates else "texts",
        "texts": len(texts),
        "content": _sha256(str(len(texts)), *texts, *templates),
        "tokens": _tokens(tokenizer, prompts),
    }


def _of(runtime: Runtime) -> dict[str, Any]:
    return {"encoder": ENCODER, "versions": versions(), "runtime": runtime.identity}


_KNOWN: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], str]] = weakref.WeakKeyDictionary()
"""Hashes of tokens, by tokenizer. It holds none, as a tokenizer may hold a model."""


def _tokens(tokenizer: Any, prompts: tuple[str, ...]) -> str:
    """sha256 over token ids: weights do not say which tokenizer is used with them. Computed once
    for all alphas."""
    known = _KNOWN.setdefault(tokenizer, {})
    if prompts not in known:
        known[prompts] = _token_hash(tokenizer, prompts)
    return known[prompts]


def _token_hash(tokenizer: Any, prompts: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(prompts), 1024):
        tokens = tokenizer(list(prompts[start : start + 1024])).cpu()
        used = int((tokens != 0).any(dim=0).nonzero().max()) + 1 if tokens.any() else 0
        tokens = tokens[:, :used].to(torch.int64).contiguous()  # the same with more padding
        digest.update(f"{list(tokens.shape)}".encode() + tokens.numpy().tobytes())
    return digest.hexdigest()
